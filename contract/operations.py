"""What a task can do with its input, and the defaults that each operation names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from contract.catalogue import TaskKind

Operation = Literal["ocr", "caption", "markdown", "table", "chart", "extract", "ask"]

_PICTURES: tuple[TaskKind, ...] = ("image", "document")
_PICTURES_AND_VIDEO: tuple[TaskKind, ...] = ("image", "document", "video")

#: max_partition of the operations that read small print, as in the reference's evaluations of such benchmarks.
READING_PARTITION = 12


@dataclass(frozen=True)
class OperationRule:
    """One operation.

    Attributes:
        kinds: The kinds of task that may ask for it.
        reads: Whether it reads what a page says: a blank page then has nothing to give, a page that lies on its side
            is turned, and one picture is cut into up to ``READING_PARTITION`` tiles.
        needs_prompt: Whether the caller must give the prompt.
        text_layer_answers: Whether a page's own text is an answer to it.
    """

    kinds: tuple[TaskKind, ...]
    reads: bool = True
    needs_prompt: bool = False
    text_layer_answers: bool = False


OPERATIONS: dict[Operation, OperationRule] = {
    "ocr": OperationRule(_PICTURES_AND_VIDEO, text_layer_answers=True),
    "markdown": OperationRule(_PICTURES, text_layer_answers=True),
    "table": OperationRule(_PICTURES),
    "chart": OperationRule(_PICTURES),
    "extract": OperationRule(_PICTURES_AND_VIDEO),
    "caption": OperationRule(_PICTURES_AND_VIDEO, reads=False),
    "ask": OperationRule((*_PICTURES_AND_VIDEO, "text"), reads=False, needs_prompt=True),
}

#: What a task does that names no operation.
DEFAULT_OPERATIONS: dict[TaskKind, Operation] = {
    "image": "ocr",
    "document": "ocr",
    "video": "caption",
    "text": "ask",
}
