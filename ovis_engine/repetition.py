"""Endless repetition, the usual way for a model that reads text to fail: found on token ids alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ovis_engine.sampling import check_whole

#: Longest piece in tokens that may be looked for: every token is compared with as many.
MAX_PERIOD = 4096
#: Most repeats and tokens that a rule may want: longer than any context, and their product fits 64 bits.
MAX_LENGTH = 1_000_000


@dataclass(frozen=True)
class RepetitionRule:
    """When an output counts as endless: it ends in one piece said over and over.

    The piece must stand there at least min_repeats times and take at least min_tokens tokens in all. With the defaults
    a line of dashes may be 255 tokens long, an empty table row of 8 tokens may stand 31 times, and a sentence of 40
    tokens 7 times; past that the output ends with finish_reason ``repetition``.

    Attributes:
        max_period: Longest piece in tokens that is looked for, 1 to 4096.
        min_repeats: Times that the piece must stand there, 2 to 1 000 000.
        min_tokens: Tokens that the repeats must take together, 2 to 1 000 000.
    """

    max_period: int = 128
    min_repeats: int = 8
    min_tokens: int = 256

    def validate(self) -> None:
        """Checks the ranges.

        Raises:
            FieldOutOfRangeError: If a field is outside its range.
        """
        check_whole("repetition.max_period", self.max_period, 1, MAX_PERIOD)
        check_whole("repetition.min_repeats", self.min_repeats, 2, MAX_LENGTH)
        check_whole("repetition.min_tokens", self.min_tokens, 2, MAX_LENGTH)


class RepetitionGuard:
    """Watches one output, token by token, in a few microseconds each."""

    def __init__(self, rule: RepetitionRule) -> None:
        """Starts with an empty output."""
        periods = np.arange(1, rule.max_period + 1)
        self._periods = periods
        #: Per period, matches in a row after which the repeats are long enough; the first piece matches nothing.
        self._enough: npt.NDArray[np.int64] = np.maximum(periods * rule.min_repeats, rule.min_tokens) - periods
        self._matches = np.zeros(rule.max_period, dtype=np.int64)
        # Written twice, so that the latest max_period ids always lie in one piece.
        self._latest = np.full(2 * rule.max_period, -1, dtype=np.int64)
        self._place = 0

    def take(self, token_id: int) -> bool:
        """Adds a token; whether the output is endless now."""
        size = len(self._periods)
        recent = self._latest[self._place : self._place + size]  # newest first: (max_period,)
        self._matches = (self._matches + 1) * (recent == token_id)
        self._place = (self._place - 1) % size
        self._latest[self._place] = self._latest[self._place + size] = token_id
        return bool((self._matches >= self._enough).any())
