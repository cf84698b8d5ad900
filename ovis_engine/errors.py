"""The engine's error tree.

Every error carries a stable ``code`` (snake_case) and a message that is safe to show to the caller who sent the
request: it holds numbers and names of fields, never prompts, pixels or paths outside the checkpoint.
"""

from __future__ import annotations

from typing import ClassVar


class EngineError(Exception):
    """Root of everything that this package raises on purpose.

    Attributes:
        code: Stable snake_case name of the error, for logs, metrics and API answers.
        message: One client-safe sentence.
    """

    code: ClassVar[str] = "engine_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class CheckpointError(EngineError):
    """A checkpoint cannot be loaded: a file or tensor is missing, unexpected, misshaped or truncated.

    Attributes:
        file: Name of the offending file inside the checkpoint directory.
        tensor: Name of the offending tensor as stored, or None when the whole file is at fault.
    """

    code = "checkpoint_invalid"

    def __init__(self, message: str, *, file: str, tensor: str | None = None) -> None:
        where = file if tensor is None else f"{file}, tensor {tensor}"
        super().__init__(f"{where}: {message}")
        self.file = file
        self.tensor = tensor


class UnsupportedModelError(CheckpointError):
    """The checkpoint is sound but of a family that this engine does not serve yet."""

    code = "model_not_supported"


class RequestError(EngineError):
    """The caller's fault; raised at submit, before any work is done. The engine is unharmed."""

    code = "request_invalid"


class InvalidTilesError(RequestError):
    """Tiles do not have the grid, dtype, shape or side that was announced."""

    code = "invalid_tiles"


class ImageCountMismatchError(RequestError):
    """The text has more or fewer picture marks than there are pictures."""

    code = "image_count_mismatch"


class ContextTooLongError(RequestError):
    """Prompt and requested output together exceed the model's context."""

    code = "context_too_long"


class TooManyTokensError(RequestError):
    """Prompt and requested output can never fit this engine's KV cache."""

    code = "too_many_tokens"


class TooManyTilesError(RequestError):
    """The request's tiles can never fit this engine's visual-embedding pool."""

    code = "too_many_tiles"


class DuplicateRequestError(RequestError):
    """A request with the same id is still in the engine."""

    code = "duplicate_request_id"


class EngineClosedError(EngineError):
    """The engine was closed before the request ended, or before it was submitted."""

    code = "engine_closed"


class EngineDeadError(EngineError):
    """A thread of the engine died; nothing submitted to it can end any more. Start a new process."""

    code = "engine_dead"
