"""How well texts were read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """One page's truth and what was read.

    Attributes:
        truth: Its transcript.
        read: What the model wrote.
        font: Font it was drawn with.
        advance: A character's advance in tile pixels.
    """

    truth: str
    read: str
    font: str
    advance: float

    @property
    def errors(self) -> int:
        """Edit distance of the two."""
        return edit_distance(self.read, self.truth)


def edit_distance(one: str, other: str) -> int:
    """Fewest insertions, deletions and substitutions of a character that turn one text into the other."""
    row = list(range(len(other) + 1))
    for number, left in enumerate(one, 1):
        above, row = row, [number]
        for column, right in enumerate(other, 1):
            row.append(min(above[column] + 1, row[-1] + 1, above[column - 1] + (left != right)))
    return row[-1]


def character_error_rate(readings: Sequence[Reading]) -> float:
    """All errors over all true characters."""
    return sum(reading.errors for reading in readings) / max(1, sum(len(reading.truth) for reading in readings))


def exact_share(readings: Sequence[Reading]) -> float:
    """Share of pages without an error."""
    return sum(reading.read == reading.truth for reading in readings) / len(readings)


def error_rate_by(readings: Sequence[Reading], key: Callable[[Reading], str]) -> dict[str, float]:
    """Character error rates of groups of readings, sorted by the groups' names."""
    groups: dict[str, list[Reading]] = defaultdict(list)
    for reading in readings:
        groups[key(reading)].append(reading)
    return {name: round(character_error_rate(groups[name]), 4) for name in sorted(groups)}
