"""In which manner a doubtful part is run once more, and which of both runs is better. Pure."""

from __future__ import annotations

from collections.abc import Collection

from contract.options import TaskOptions
from workers.checks import Finding
from workers.questions import Manner

#: Repetition penalty of a second run whose first went round in circles.
FIRM_PENALTY = 1.15

#: How many times the output a second run may have whose first was cut short.
MORE_TOKENS = 4

#: Temperature of a second run whose first, with the likeliest token each time, gave nothing to work with.
STIRRED_TEMPERATURE = 0.5

#: How bad it is. What was cut short is good as far as it goes; rows that weren't found may still be read by people.
GRAVITY: dict[Finding, int] = {"truncated": 1, "no_table": 2, "repetition": 3, "schema_mismatch": 3, "empty": 3}


def is_better(second: tuple[Collection[Finding], str], first: tuple[Collection[Finding], str], *, angle: int) -> bool:
    """Whether the second run's findings and text are to be given instead of the first's.

    A page that was turned, as it reads better so, is taken where no more is doubtful about it and nothing worse. Else
    the worst finding decides, then how many there are, then the length of the text.
    """
    (found, text), (found_first, text_first) = second, first
    gravity, gravity_first = _gravity(found), _gravity(found_first)
    if angle:
        return len(found) <= len(found_first) and gravity <= gravity_first
    return (gravity, len(found), -len(text)) <= (gravity_first, len(found_first), -len(text_first))


def _gravity(found: Collection[Finding]) -> int:
    return max((GRAVITY[finding] for finding in found), default=0)


def other_manner(
    options: TaskOptions, found: Collection[Finding], *, angle: int, limit: int, room: int, loose: bool = False
) -> Manner:
    """How to run again; the plain manner where there is nothing to try.

    Args:
        options: The caller's, which are kept: an output limit of theirs is not raised.
        found: What is doubtful about the first run.
        angle: How far the page reads better turned, in degrees clockwise. A turned page is another page: nothing else
            is changed for it.
        limit: Output tokens of the first run, at most.
        room: Output tokens that the model's context has room for.
        loose: Whether the answer is held to a schema that leaves open what could be bounded.
    """
    if angle:
        return Manner(angle=angle)
    loops = "repetition" in found
    penalty = options.repetition_penalty or 1.0
    more = min(MORE_TOKENS * limit, room)
    may_have_more = "truncated" in found and options.max_new_tokens is None and more > limit
    gave_nothing = not loops and bool({"empty", "no_table"} & set(found))
    return Manner(
        repetition_penalty=FIRM_PENALTY if loops and penalty < FIRM_PENALTY else None,
        temperature=STIRRED_TEMPERATURE if gave_nothing and not options.temperature else None,
        max_new_tokens=more if may_have_more else None,
        # Where the first run was only cut short and may be longer, the data may well be longer than the bounds.
        tight=loose and "schema_mismatch" in found and (loops or not may_have_more),
    )
