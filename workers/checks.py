"""What is doubtful about an answer. Pure functions; docs/api.md explains the words to callers."""

from __future__ import annotations

import re
from typing import Literal

from contract.results import FinishReason

Finding = Literal["repetition", "truncated", "empty", "schema_mismatch", "no_table"]

#: A piece that stands at the end of a text at least this often, and in all this long, is a loop. Ruled lines and
#: columns of equal figures stay below it or repeat one or two characters.
LOOP_TIMES = 10
LOOP_CHARS = 240
LOOP_PIECE_CHARS = (3, 200)

_LOOP_TAIL_CHARS = LOOP_TIMES * LOOP_PIECE_CHARS[1]


def findings(text: str, finish_reason: FinishReason, *, inked: bool) -> tuple[Finding, ...]:
    """What is doubtful about a text.

    Args:
        text: What the model said.
        finish_reason: Why it ended.
        inked: Whether the model was shown something to speak of.
    """
    found: list[Finding] = []
    if finish_reason == "repetition" or ends_in_a_loop(text):
        found.append("repetition")
    if finish_reason == "length":
        found.append("truncated")
    if inked and not text.strip():
        found.append("empty")
    return tuple(found)


def ends_in_a_loop(text: str) -> bool:
    """Whether the end of ``text`` is one piece over and over."""
    tail = text.rstrip()[-_LOOP_TAIL_CHARS:]
    for length in range(LOOP_PIECE_CHARS[0], LOOP_PIECE_CHARS[1] + 1):
        times = max(LOOP_TIMES, -(-LOOP_CHARS // length))
        if len(tail) < times * length:
            continue
        piece = tail[-length:]
        if tail.endswith(piece * times) and _says_something(piece):
            return True
    return False


def _says_something(piece: str) -> bool:
    """Whether it isn't part of a ruled line, of dots up to a page number, or of empty cells."""
    return re.search(r"[^\W_]", piece) is not None and len(set(piece.replace(" ", ""))) > 2
