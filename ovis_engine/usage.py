"""Sizes and counters of the decode loop, and how rows leave it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from ovis_engine.kept_keys import MAX_BYTES
from ovis_engine.row import FinishReason, Row

#: Seconds over which the token rate is taken.
RATE_WINDOW_S = 10.0
#: Least seconds between two samples of it.
RATE_SAMPLE_S = 0.25


@dataclass(frozen=True)
class RowEnd:
    """How a row left the loop.

    Attributes:
        row: The row, with everything it generated.
        reason: Why it ended; of no meaning with an error or a fault of the row.
        error: The library's error text if the loop failed, else None.
    """

    row: Row
    reason: FinishReason
    error: str | None = None


@dataclass(frozen=True)
class LoopLimits:
    """Sizes of the loop.

    Attributes:
        num_blocks: Blocks of the KV cache, each page_size tokens.
        page_size: Tokens per block, at least 4.
        max_batch_tokens: Most tokens of one step.
        max_rows: Most rows of one step.
        long_prompt_tokens: Prompts longer than this come in by chunks while rows decode.
        chunk_tokens: Most tokens of such a prompt in one step.
        kept_keys_bytes: As in `EngineConfig`.
    """

    num_blocks: int
    page_size: int
    max_batch_tokens: int
    max_rows: int
    long_prompt_tokens: int = 512
    chunk_tokens: int = 2048
    kept_keys_bytes: int = MAX_BYTES


@dataclass(frozen=True)
class LoopUsage:
    """Counters of the loop; each is read without a lock and may be a step old.

    Attributes:
        steps: Steps run since the start.
        output_tokens: Tokens generated since the start.
        tokens_per_second: Tokens generated per second, lately.
        last_step_rows: Rows that shared the latest step.
        preemptions: Times a row gave up its cache to others and was queued again.
        cache_tokens_used: KV cache tokens that live rows hold.
        cache_tokens_total: KV cache tokens there are.
    """

    steps: int
    output_tokens: int
    tokens_per_second: float
    last_step_rows: int
    preemptions: int
    cache_tokens_used: int
    cache_tokens_total: int


class LoopCounters:
    """Counts what the loop does. Its thread changes it, any may read."""

    def __init__(self) -> None:
        """Starts at 0."""
        self.preemptions = 0
        self._steps = self._output_tokens = self._last_step_rows = 0
        self._rate = RateMeter()

    def note_step(self, num_rows: int, num_tokens: int) -> None:
        """Notes a step of some rows that will yield some tokens."""
        self._steps += 1
        self._last_step_rows = num_rows
        self._output_tokens += num_tokens
        self._rate.note(self._output_tokens)

    def usage(self, *, cache_tokens_used: int, cache_tokens_total: int) -> LoopUsage:
        """The counters, with what the caller knows of the cache."""
        return LoopUsage(
            steps=self._steps,
            output_tokens=self._output_tokens,
            tokens_per_second=self._rate.per_second(),
            last_step_rows=self._last_step_rows,
            preemptions=self.preemptions,
            cache_tokens_used=cache_tokens_used,
            cache_tokens_total=cache_tokens_total,
        )


class RateMeter:
    """Growth per second of a counter over the last `RATE_WINDOW_S` seconds. One thread notes, any may read."""

    def __init__(self) -> None:
        """Starts at 0."""
        self._samples: deque[tuple[float, int]] = deque()
        self._latest = 0

    def note(self, count: int) -> None:
        """Notes the counter's value now."""
        now = time.monotonic()
        if not self._samples or now - self._samples[-1][0] >= RATE_SAMPLE_S:
            self._samples.append((now, self._latest))
            while len(self._samples) > 1 and now - self._samples[1][0] >= RATE_WINDOW_S:
                self._samples.popleft()
        self._latest = count

    def per_second(self) -> float:
        """The rate up to now; 0 once nothing was noted for the whole window."""
        now = time.monotonic()
        try:
            since, base = next(sample for sample in tuple(self._samples) if now - sample[0] <= RATE_WINDOW_S)
        except (StopIteration, RuntimeError):  # nothing recent, or the deque changed under the copy
            return 0.0
        return (self._latest - base) / max(now - since, RATE_SAMPLE_S)
