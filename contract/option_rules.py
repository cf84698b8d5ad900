"""Which options go with which kinds and operations, and with each other."""

from __future__ import annotations

from dataclasses import dataclass

from contract.catalogue import TaskKind
from contract.errors import InvalidRequest
from contract.json_schemas import check_schema
from contract.operations import OPERATIONS, Operation
from contract.options import TaskOptions
from contract.refusals import Refused
from contract.requests import TaskRequest


@dataclass(frozen=True)
class _Scope:
    """Where an option means something; None is everywhere."""

    kinds: tuple[TaskKind, ...] | None = None
    operations: tuple[Operation, ...] | None = None


_DOCUMENT, _VIDEO = _Scope(kinds=("document",)), _Scope(kinds=("video",))

_SCOPES: dict[str, _Scope] = {
    "json_schema": _Scope(operations=("extract", "ask")),
    "table_format": _Scope(operations=("table",)),
    "cot": _Scope(operations=("ask",)),
    "logprobs": _Scope(kinds=("image", "video", "text"), operations=("ask",)),
    "stop": _Scope(operations=("ocr", "markdown", "caption", "table", "ask")),
    "max_partition": _Scope(kinds=("image", "document", "video")),
    "pages": _DOCUMENT,
    "text_layer": _DOCUMENT,
    "on_page_failure": _Scope(kinds=("document", "video")),
    "num_frames": _VIDEO,
    "fps": _VIDEO,
    "start_s": _VIDEO,
    "end_s": _VIDEO,
    "clip_s": _VIDEO,
}


def check_options(request: TaskRequest, operation: Operation) -> None:
    """Refuse what doesn't go together. A schema is compiled, which may take a tenth of a second.

    Raises:
        Refused: With a pointer to the option.
    """
    options = request.options
    for name in sorted(options.model_fields_set):
        _check_scope(name, request.kind, operation)
    _check_video(options)
    if options.logprobs is not None and (options.stream or options.clip_s is not None):
        raise _refused("logprobs", "this goes neither with stream nor with clip_s")
    if options.text_layer == "only" and not OPERATIONS[operation].text_layer_answers:
        able = " and ".join(name for name, rule in OPERATIONS.items() if rule.text_layer_answers)
        raise _refused("text_layer", f"a page's own text answers {able} only")
    if operation == "extract" or options.json_schema is not None:
        _check_schema(options)


def check_history(request: TaskRequest, operation: Operation, num_inputs: int) -> None:
    """Refuse a conversation that no model can be asked to go on with.

    Raises:
        Refused: With a pointer to what is wrong.
    """
    history = request.history
    if history and (operation != "ask" or request.kind not in ("image", "text")):
        message = f"this goes with ask about pictures or text, not {operation} and {request.kind}"
        raise Refused.at("/history", InvalidRequest(message))
    for index, past in enumerate(history):
        if past.role != ("user", "assistant")[index % 2]:
            raise Refused.at(f"/history/{index}/role", InvalidRequest("user and assistant take turns, user first"))
        if past.images and past.role == "assistant":
            raise Refused.at(f"/history/{index}/images", InvalidRequest("only a user's turn comes with pictures"))
    if len(history) % 2:
        raise Refused.at("/history", InvalidRequest("the last turn before the prompt is the assistant's"))
    num_images = sum(past.images for past in history)
    if num_images > num_inputs:
        message = f"the turns have {num_images} pictures; the task has {num_inputs}"
        raise Refused.at("/history", InvalidRequest(message))


def _check_scope(name: str, kind: TaskKind, operation: Operation) -> None:
    scope = _SCOPES.get(name, _Scope())
    if scope.kinds is not None and kind not in scope.kinds:
        raise _refused(name, f"this goes with tasks of kind {_listed(scope.kinds)}, not {kind}")
    if scope.operations is not None and operation not in scope.operations:
        raise _refused(name, f"this goes with the operation {_listed(scope.operations)}, not {operation}")


def _check_video(options: TaskOptions) -> None:
    if options.num_frames is not None and options.fps is not None:
        raise _refused("fps", "give num_frames or fps, not both")
    start_s = options.start_s or 0.0
    # Stretches of a film are told in milliseconds.
    if options.end_s is not None and round(options.end_s, 3) <= round(start_s, 3):
        raise _refused("end_s", f"{options.end_s:g} isn't after the start at {start_s:g}, by a millisecond at least")


def _check_schema(options: TaskOptions) -> None:
    if options.json_schema is None:
        raise _refused("json_schema", "the operation extract needs a JSON Schema")
    for name, value in (("cot", options.cot), ("stop", options.stop)):
        if value:
            raise _refused(name, "this doesn't go with a schema, which decides where the text begins and ends")
    try:
        check_schema(options.json_schema)
    except InvalidRequest as exc:
        raise Refused.at("/options/schema", exc) from exc


def _refused(name: str, message: str) -> Refused:
    return Refused.at(f"/options/{TaskOptions.model_fields[name].alias or name}", InvalidRequest(message))


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
