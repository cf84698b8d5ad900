"""Long prompts come in by small chunks while rows decode. Like `ovis_engine.batching`, touches the library's internals.

Short prompts, a tile or two, go in whole: cut up they cost a tenth of the throughput, and stall others by no more than
a tile's run through the tower does.
"""

from __future__ import annotations

from typing import Any

from transformers.generation.continuous_batching.requests import RequestState, RequestStatus
from transformers.generation.continuous_batching.scheduler import FIFOScheduler

from ovis_engine.usage import LoopLimits


class ChunkingScheduler(FIFOScheduler):  # type: ignore[misc]
    """The library's scheduler with a budget for what long prompts may take of a step."""

    #: Set once the library has made the scheduler; without limits nothing is cut smaller than the library does.
    limits: LoopLimits | None = None

    def schedule_batch(self, token_budget: int, cache_budget: int) -> Any:
        """As the library; renews the budget."""
        self._left = token_budget
        if self.limits is not None and self._rows_decode():
            self._left = min(token_budget, self.limits.chunk_tokens)
        return super().schedule_batch(token_budget, cache_budget)

    def _schedule_request(
        self, state: RequestState, request_tokens: list[int], token_budget: int, removed: set[str]
    ) -> None:
        is_long = self.limits is not None and len(state.initial_tokens) > self.limits.long_prompt_tokens
        if is_long and state.status != RequestStatus.DECODING:
            # The library wants every request that it schedules to take at least a token.
            token_budget = min(token_budget, max(1, self._left))
            self._left -= min(len(request_tokens), token_budget)
        super()._schedule_request(state, request_tokens, token_budget, removed)

    def _rows_decode(self) -> bool:
        return any(state.status == RequestStatus.DECODING for state in self.active_requests.values())
