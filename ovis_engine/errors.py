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


class CheckpointNotFoundError(CheckpointError):
    """There is no checkpoint where one was looked for."""

    code = "checkpoint_not_found"


class UnsupportedModelError(CheckpointError):
    """The checkpoint is sound but of a family that this engine does not serve yet."""

    code = "model_not_supported"


class RequestError(EngineError):
    """The caller's fault; raised at submit, before any work is done. The engine is unharmed."""

    code = "request_invalid"


class FieldOutOfRangeError(RequestError):
    """A field of the request is outside its limits.

    Attributes:
        field: Name of the field.
        limit: What the field may be.
        value: What it was; its type, if it was no number.
    """

    code = "field_out_of_range"

    def __init__(self, field: str, limit: str, value: float | str) -> None:
        super().__init__(f"{field} must be {limit}, not {value}")
        self.field, self.limit, self.value = field, limit, value


class InvalidConstraintError(RequestError):
    """A JSON Schema or regular expression is malformed, too large, or asks for what the grammar library lacks."""

    code = "invalid_constraint"


class InvalidTilesError(RequestError):
    """Tiles do not have the grid, dtype, shape or side that was announced."""

    code = "invalid_tiles"


class VideoError(RequestError):
    """A clip gives no frames."""

    code = "video_invalid"


class NoVideoStreamError(VideoError):
    """The file holds no moving pictures."""

    code = "no_video_stream"


class NoVideoFramesError(VideoError):
    """The video stream holds no frame that can be decoded."""

    code = "no_video_frames"


class VideoTooLargeError(VideoError):
    """The clip has more pixels, frames a second, or frames in the stretch asked for, than the reader may decode."""

    code = "video_too_large"


class DamagedVideoError(VideoError):
    """The file is no video, is damaged, or ends before a frame that it announced."""

    code = "video_damaged"


class ImageCountMismatchError(RequestError):
    """The text has more or fewer picture marks than there are pictures."""

    code = "image_count_mismatch"


class SystemMessageNotSupportedError(RequestError):
    """The model's chat format has no place for a system message."""

    code = "system_message_not_supported"


class LengthError(RequestError):
    """Prompt and requested output together are longer than something allows.

    Attributes:
        num_prompt_tokens: Positions of the prompt, visual and indicator tokens included.
        num_visual_tokens: Those of them that tiles took (indicators not counted).
        max_new_tokens: Output that was asked for.
        limit: Positions that prompt and output may take together.
    """

    def __init__(
        self, message: str, *, num_prompt_tokens: int, num_visual_tokens: int, max_new_tokens: int, limit: int
    ) -> None:
        super().__init__(message)
        self.num_prompt_tokens, self.num_visual_tokens = num_prompt_tokens, num_visual_tokens
        self.max_new_tokens, self.limit = max_new_tokens, limit


class ContextTooLongError(LengthError):
    """Prompt and requested output together exceed the model's context."""

    code = "context_too_long"


class TooManyTokensError(LengthError):
    """Prompt and requested output can never fit this engine's KV cache."""

    code = "too_many_tokens"


class TooManyTilesError(RequestError):
    """The request's tiles can never fit this engine's visual-embedding pool."""

    code = "too_many_tiles"


class DuplicateRequestError(RequestError):
    """A request with the same id is still in the engine."""

    code = "duplicate_request_id"


class ConstraintFailedError(EngineError):
    """A constraint outgrew the grammar library's limits while its request ran; only that request ended."""

    code = "constraint_failed"


class CallbackError(EngineError):
    """A caller's `on_delta` raised; only its request ended."""

    code = "callback_failed"


class EngineClosedError(EngineError):
    """The engine was closed before the request ended, or before it was submitted."""

    code = "engine_closed"


class EngineDeadError(EngineError):
    """A thread of the engine died; nothing submitted to it can end any more. Start a new process."""

    code = "engine_dead"
