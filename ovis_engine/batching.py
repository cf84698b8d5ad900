"""The decode loop: transformers' continuous batching, and the only module that touches its internals.

What is relied on is listed in ``tests/engine/test_batching_contract.py``, which fails when a new release changes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager, OutputRouter
from transformers.generation.continuous_batching.requests import GenerationOutput, RequestState, RequestStatus
from transformers.generation.continuous_batching.scheduler import SCHEDULER_MAPPING, FIFOScheduler

#: Key under which our scheduler is registered with the library.
SCHEDULER_NAME = "ovis_fifo"


@dataclass(frozen=True)
class RowEnd:
    """How a row left the loop.

    Attributes:
        request_id: Which row.
        token_ids: Everything it generated, end token included.
        canceled: Whether it was canceled rather than finished.
        error: The library's error text if the row failed, else None.
    """

    request_id: str
    token_ids: tuple[int, ...]
    canceled: bool = False
    error: str | None = None


@dataclass(frozen=True)
class LoopLimits:
    """Sizes of the loop.

    Attributes:
        num_blocks: Blocks of the KV cache, each page_size tokens.
        page_size: Tokens per block, at least 4.
        max_batch_tokens: Most tokens of one step.
        max_rows: Most rows of one step.
    """

    num_blocks: int
    page_size: int
    max_batch_tokens: int
    max_rows: int


@dataclass(frozen=True)
class LoopUsage:
    """Counters of the loop; each is read without a lock and may be a step old.

    Attributes:
        steps: Steps run since the start.
        output_tokens: Tokens generated since the start.
        last_step_rows: Rows that shared the latest step.
        preemptions: Times a row gave up its cache to others and was queued again.
        cache_tokens_used: KV cache tokens that live rows hold.
        cache_tokens_total: KV cache tokens there are.
    """

    steps: int
    output_tokens: int
    last_step_rows: int
    preemptions: int
    cache_tokens_used: int
    cache_tokens_total: int


class DecodeLoop:
    """Runs rows of token ids through a language model, many per step, greedily.

    `add`, `cancel` and `usage` may be called from any thread. The callbacks run on the loop's own thread, between
    steps; they must be quick and must not raise.
    """

    def __init__(
        self,
        language_model: PreTrainedModel,
        limits: LoopLimits,
        *,
        on_row_end: Callable[[RowEnd], None],
        on_exit: Callable[[BaseException | None], None],
    ) -> None:
        """Allocates the KV cache; the loop's thread starts with `start`.

        Args:
            language_model: In evaluation mode, with a packed attention implementation set.
            limits: Sizes of the loop.
            on_row_end: Told once about each row that finished, failed or was canceled.
            on_exit: Told once when the loop's thread ends, with the fault that ended it, if any.

        Raises:
            MemoryError: If the cache does not fit the device.
        """
        self._manager = _Manager(language_model, _generation_config(), _batching_config(limits), on_row_end, on_exit)
        # Creates the cache now (and captures CUDA graphs where used): too little memory is a failed start.
        self._manager.warmup()
        processor = self._manager.batch_processor
        assert processor is not None
        self._cache = processor.cache
        self._scheduler: _CountingScheduler = processor.scheduler
        self._scheduler.on_canceled = on_row_end
        self._page_size = limits.page_size

    @property
    def num_blocks(self) -> int:
        """Blocks of the KV cache; at least as many as asked for."""
        blocks: int = self._cache.num_blocks
        return blocks

    def start(self) -> None:
        """Starts the loop's thread. Call once."""
        self._manager.start()

    def add(
        self, request_id: str, token_ids: Sequence[int], *, max_new_tokens: int, eos_token_ids: Sequence[int]
    ) -> None:
        """Queues a row; the caller has checked that prompt and output fit the cache.

        A loop that has stopped drops the row without a word; `on_exit` tells of the end.
        """
        self._manager.add_request(
            list(token_ids),
            request_id=request_id,
            max_new_tokens=max_new_tokens,
            eos_token_id=list(eos_token_ids),
        )

    def cancel(self, request_id: str) -> None:
        """Asks for a row to be dropped before the next step; a row that has ended is left alone."""
        self._manager.cancel_request(request_id)

    def flush_prefix_cache(self) -> None:
        """Forgets every cached block that no row uses. Pauses the loop; must not be called on its thread.

        Raises:
            RuntimeError: If the loop is not running.
        """
        with self._manager.pause():
            self._cache.evict_cached_blocks()

    def usage(self) -> LoopUsage:
        """Reads the counters."""
        scheduler = self._scheduler
        free_bytes = self._cache.compute_free_capacity(relative=False)
        (allocator,) = self._cache.cache_allocators.values()
        free_blocks = int(free_bytes) // allocator.bytes_per_block + len(allocator.ledger.cached_blocks)
        return LoopUsage(
            steps=scheduler.steps,
            output_tokens=scheduler.output_tokens,
            last_step_rows=scheduler.last_step_rows,
            preemptions=scheduler.preemptions,
            cache_tokens_used=max(0, self.num_blocks - free_blocks) * self._page_size,
            cache_tokens_total=self.num_blocks * self._page_size,
        )

    def stop(self) -> None:
        """Ends the loop after the current step; rows still in it are reported as failed. Waits for the thread."""
        if self._manager.is_running():
            self._manager.stop(block=True, hard_stop=True)


def _generation_config() -> GenerationConfig:
    """Plain greedy decoding, whatever the checkpoint's own file says."""
    return GenerationConfig(do_sample=False, max_new_tokens=1, eos_token_id=-1, pad_token_id=0)


def _batching_config(limits: LoopLimits) -> ContinuousBatchingConfig:
    SCHEDULER_MAPPING[SCHEDULER_NAME] = _CountingScheduler
    return ContinuousBatchingConfig(
        page_size=limits.page_size,
        num_blocks=limits.num_blocks,
        max_batch_tokens=limits.max_batch_tokens,
        max_requests_per_batch=min(limits.max_rows, limits.max_batch_tokens),
        scheduler_type=SCHEDULER_NAME,
        # A canceled row frees its blocks at once; asynchronous batching may still have it in flight.
        use_async_batching=False,
        auto_switch_to_flash=False,
    )


class _CountingScheduler(FIFOScheduler):  # type: ignore[misc]
    """The library's scheduler, which also counts what it does and says which rows a cancellation dropped."""

    on_canceled: Callable[[RowEnd], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.steps = 0
        self.output_tokens = 0
        self.last_step_rows = 0
        self.preemptions = 0

    def add_waiting_request(self, state: RequestState) -> None:
        # A row that comes back carries the length of its first prompt.
        self.preemptions += state._true_initial_tokens > 0
        super().add_waiting_request(state)

    def schedule_batch(self, token_budget: int, cache_budget: int) -> Any:
        scheduled = super().schedule_batch(token_budget, cache_budget)
        rows = scheduled[0]
        if rows:
            self.steps += 1
            self.last_step_rows = len(rows)
            self.output_tokens += sum(row.has_new_token for row in rows)
        return scheduled

    def clear_cancelled_requests(self) -> list[RequestState]:
        dropped: list[RequestState] = super().clear_cancelled_requests()
        for state in dropped:
            output = state.to_generation_output()
            self.on_canceled(RowEnd(output.request_id, tuple(output.generated_tokens), canceled=True))
        return dropped


class _Router(OutputRouter):  # type: ignore[misc]
    """Hands ended rows to a callback on the loop's thread instead of queueing them."""

    def __init__(self, on_row_end: Callable[[RowEnd], None]) -> None:
        super().__init__()
        self._on_row_end = on_row_end

    def deliver(self, output: GenerationOutput) -> None:
        if output.is_finished():
            failed = output.status == RequestStatus.FAILED
            error = (output.error or "failed without a reason") if failed else None
            self._on_row_end(RowEnd(output.request_id, tuple(output.generated_tokens), error=error))

    def deliver_batch(self, outputs: list[GenerationOutput]) -> None:
        for output in outputs:
            self.deliver(output)


class _Manager(ContinuousBatchingManager):  # type: ignore[misc]
    """The library's manager with our router, a daemon thread and word of its end."""

    def __init__(
        self,
        model: PreTrainedModel,
        generation_config: GenerationConfig,
        batching_config: ContinuousBatchingConfig,
        on_row_end: Callable[[RowEnd], None],
        on_exit: Callable[[BaseException | None], None],
    ) -> None:
        super().__init__(model, generation_config, batching_config)
        self.output_router = _Router(on_row_end)
        self._on_exit = on_exit

    def start(self) -> None:
        self.background_thread_status.clear()
        # A daemon, so that a process whose main thread has failed can end.
        self._generation_thread = threading.Thread(target=self._run_generation_loop, name="ovis-decode", daemon=True)
        self._generation_thread.start()

    def _run_generation_loop(self) -> None:
        try:
            super()._run_generation_loop()
        finally:
            self._on_exit(self.background_thread_status.fatal_error)
