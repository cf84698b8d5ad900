"""JSON logs: an event's name and key-values, one line per change of state.

Never prompts, media, results or keys. Tracebacks are structured, without the values of local variables, which could
hold any of these.
"""

from __future__ import annotations

import logging
import sys

import structlog
from pydantic_core import to_json


def configure_logs(role: str, level: str = "INFO", **bound: str) -> None:
    """Send structlog and the standard library's loggers (Celery, uvicorn) to stderr as JSON. Call once, in main.

    Args:
        role: What the process is; on every line.
        level: Lowest level logged.
        bound: More that is on every line, from every thread, such as the worker's name.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
    ]

    def add_role(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.update(role=role, **bound)
        return event

    # Past the standard library's loggers: a line through them takes five times as long.
    structlog.configure(
        processors=[*shared, add_role, structlog.processors.JSONRenderer(serializer=_json_line)],
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name, add_role],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=lambda event, **_: _json_line(event).decode()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("botocore", "boto3", "urllib3", "httpx", "httpcore", "celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _json_line(event: object, **_: object) -> bytes:
    """JSON of an event; what JSON can't say is written as Python would."""
    return to_json(event, fallback=repr, inf_nan_mode="strings")


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger; cheap, may be called at import."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(name)
    return logger
