"""In which manner a doubtful part is run once more. Pure."""

from __future__ import annotations

from collections.abc import Collection

from contract.options import TaskOptions
from workers.checks import Finding
from workers.questions import Manner

#: Repetition penalty of a second run whose first went round in circles.
FIRM_PENALTY = 1.15

#: How many times the output a second run may have whose first was cut short.
MORE_TOKENS = 4


def other_manner(options: TaskOptions, found: Collection[Finding], *, angle: int, limit: int, room: int) -> Manner:
    """How to run again; the plain manner where there is nothing to try.

    Args:
        options: The caller's, which are kept: an output limit of theirs is not raised.
        found: What is doubtful about the first run.
        angle: How far the page reads better turned, in degrees clockwise. A turned page is another page: nothing else
            is changed for it.
        limit: Output tokens of the first run, at most.
        room: Output tokens that the model's context has room for.
    """
    if angle:
        return Manner(angle=angle)
    loops = "repetition" in found
    penalty = options.repetition_penalty or 1.0
    more = min(MORE_TOKENS * limit, room)
    may_have_more = "truncated" in found and options.max_new_tokens is None and more > limit
    return Manner(
        repetition_penalty=FIRM_PENALTY if loops and penalty < FIRM_PENALTY else None,
        max_new_tokens=more if may_have_more else None,
        # Where the first run was only cut short, the data may well be longer than the bounds.
        tight=loops and "schema_mismatch" in found,
    )
