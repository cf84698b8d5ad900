"""The decode loop: transformers' continuous batching, and the only module that touches its internals.

What is relied on is listed in ``tests/engine/test_batching_contract.py``, which fails when a new release changes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
)
from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager, OutputRouter
from transformers.generation.continuous_batching.model_runner import ModelRunner, infer_max_single_request_tokens
from transformers.generation.continuous_batching.requests import (
    FutureRequestState,
    GenerationOutput,
    RequestState,
    RequestStatus,
)
from transformers.generation.continuous_batching.scheduler import SCHEDULER_MAPPING

from ovis_engine.attention import PACKED_ATTENTION
from ovis_engine.chunked_prefill import ChunkingScheduler
from ovis_engine.kept_keys import KeyKeeper
from ovis_engine.packed_model import PackedModel
from ovis_engine.row import Row
from ovis_engine.shaping import shape_logits
from ovis_engine.steps import STEP, Step
from ovis_engine.turns import FreeTurns, Turns
from ovis_engine.usage import LoopCounters, LoopLimits, LoopUsage, RowEnd

#: Key under which our scheduler is registered with the library.
SCHEDULER_NAME = "ovis_fifo"
#: Argument by which a row travels with the library's state of it.
ROW = "row"


class DecodeLoop:
    """Runs rows of token ids through a language model, many per step. Any thread may `add`, `cancel` and `usage`.

    The callbacks run on the loop's own thread, between steps; they must be quick and must not raise.
    """

    def __init__(
        self,
        language_model: PreTrainedModel,
        limits: LoopLimits,
        *,
        on_row_end: Callable[[RowEnd], None],
        on_exit: Callable[[BaseException | None], None],
        before_step: Callable[[], None] = lambda: None,
        turns: Turns | None = None,
    ) -> None:
        """Allocates the KV cache; the loop's thread starts with `start`.

        Args:
            language_model: In evaluation mode, with a packed attention implementation set.
            limits: Sizes of the loop.
            on_row_end: Told once about each row that finished, failed or had to leave.
            on_exit: Told once when the loop's thread ends, with the fault that ended it, if any.
            before_step: Called before each step, and about ten times a second while there is nothing to do. Rows
                that it asks to end leave before the step.
            turns: Taken for each step, if it must not run beside the vision tower.

        Raises:
            MemoryError: If the cache does not fit the device.
        """
        self._rows: dict[str, Row] = {}
        # The library's manager forgets its thread when it stops, and trips over a second call meanwhile.
        self._stopping = threading.Lock()
        self._on_row_end = on_row_end
        self._manager = _Manager(language_model, limits, self._row_left, on_exit, turns or FreeTurns())
        # Creates the cache now (and captures CUDA graphs where used): too little memory is a failed start.
        self._manager.warmup()
        processor = self._manager.batch_processor
        assert processor is not None
        self._cache = processor.cache
        self._scheduler: _Scheduler = processor.scheduler
        self._scheduler.before_step = before_step
        self._scheduler.on_dropped = self._row_left
        self._scheduler.limits = limits
        #: Tokens of the KV cache, at least as many as asked for.
        self.cache_tokens: int = self._cache.num_blocks * limits.page_size
        #: Most tokens of one row, prompt and output: less than the whole cache where layers differ in what they keep.
        self.max_row_tokens: int = infer_max_single_request_tokens(self._cache)

    def start(self) -> None:
        """Starts the loop's thread. Call once."""
        self._manager.start()

    def add(self, row: Row) -> None:
        """Queues a row; the caller has checked that prompt and output fit the cache.

        A loop that has stopped drops the row without a word; `on_exit` tells of the end.
        """
        self._rows[row.request_id] = row
        self._manager.add_request(
            list(row.prompt_ids),
            request_id=row.request_id,
            max_new_tokens=row.max_new_tokens,
            eos_token_id=sorted(row.eos_token_ids),
            **{ROW: row},
        )

    def cancel(self, request_id: str) -> None:
        """Asks for a row to be dropped before the next step; a row that has ended is left alone."""
        row = self._rows.get(request_id)
        if row is not None:
            # By the row alone: an id in the library's own queue would stay there if the row ends otherwise, and hit
            # the next row of that name.
            row.end_with("canceled")
            self._manager.wake()

    def flush_prefix_cache(self) -> None:
        """Forgets every cached block that no row uses. Pauses the loop; must not be called on its thread.

        Raises:
            RuntimeError: If the loop is not running.
        """
        with self._manager.pause():
            self._cache.evict_cached_blocks()

    def usage(self) -> LoopUsage:
        """Reads the counters."""
        cache = self._cache
        total_bytes = cache.num_sectors * cache.bytes_per_sector
        free_bytes = int(cache.compute_free_capacity(relative=False))
        # Models with a sliding window have two groups of layers, each with blocks of its own size.
        for allocator in cache.cache_allocators.values():
            free_bytes += len(allocator.ledger.cached_blocks) * allocator.bytes_per_block
        used = max(0, total_bytes - free_bytes) * self.cache_tokens // total_bytes
        return self._scheduler.counters.usage(cache_tokens_used=used, cache_tokens_total=self.cache_tokens)

    def stop(self) -> None:
        """Ends the loop after the current step; rows still in it are reported as failed. Waits for the thread."""
        with self._stopping:
            if self._manager.is_running():
                self._manager.stop(block=True, hard_stop=True)

    def _row_left(self, output: GenerationOutput) -> None:
        """Takes in what the library still knew of a row, and tells of its end. Loop thread."""
        row = self._rows.pop(output.request_id)
        for token_id in output.generated_tokens[len(row.token_ids) :]:
            row.take(token_id)
        failed = output.status == RequestStatus.FAILED
        error = (output.error or "failed without a reason") if failed else None
        self._on_row_end(RowEnd(row, row.finish(), error))


def _generation_config() -> GenerationConfig:
    """Plain greedy decoding, whatever the checkpoint's own file says."""
    return GenerationConfig(do_sample=False, max_new_tokens=1, eos_token_id=-1, pad_token_id=0)


def _batching_config(limits: LoopLimits) -> ContinuousBatchingConfig:
    SCHEDULER_MAPPING[SCHEDULER_NAME] = _Scheduler
    return ContinuousBatchingConfig(
        page_size=limits.page_size,
        num_blocks=limits.num_blocks,
        max_batch_tokens=limits.max_batch_tokens,
        max_requests_per_batch=min(limits.max_rows, limits.max_batch_tokens),
        scheduler_type=SCHEDULER_NAME,
        # It lags a token: constraints and penalties need the last one, and a canceled row frees its blocks at once.
        use_async_batching=False,
        auto_switch_to_flash=False,
    )


class _Shaper(ContinuousBatchingLogitsProcessor):  # type: ignore[misc]
    """Shapes the logits of the rows that are not plain; the others' scores stay as they are."""

    supported_kwargs = {ROW: Row}  # noqa: RUF012 - the library declares it so
    ignored_kwargs = ()

    def __init__(self) -> None:
        self.placed: list[tuple[int, Row]] = []

    def fill_defaults(self, int32_tensor: Tensor) -> None:
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[FutureRequestState]) -> Tensor:
        rows = [request.state.logit_processor_kwargs[ROW] for request in requests_with_new_token]
        self.placed = [(place, row) for place, row in enumerate(rows) if not row.is_plain]
        return torch.zeros(len(rows), dtype=torch.int32)

    def __call__(self, scores: Tensor, _tensor_arg: Tensor) -> Tensor:
        return shape_logits(scores, self.placed) if self.placed else scores


class _ModelRunner(ModelRunner):  # type: ignore[misc]
    """The library's runner, which works out on a CPU what a step consists of, once for all layers.

    It leaves the CUDA graphs aside when a step shapes logits: graphs replay no Python.
    """

    shaper: _Shaper
    keeper: KeyKeeper
    packed: PackedModel | None

    def compute_batch(self, model: PreTrainedModel, batch_data: dict[str, Any]) -> None:
        if model.device.type == "cpu" and model.config._attn_implementation == PACKED_ATTENTION:
            requests = self.inputs_and_outputs.requests_in_batch
            owners = [request.state.logit_processor_kwargs[ROW] for request in requests]
            batch_data[STEP] = Step.of(batch_data, owners, self.keeper)
        super().compute_batch(self.packed or model, batch_data)

    def supports_logits_to_keep(self, model: PreTrainedModel) -> bool:
        return self.packed is not None or bool(super().supports_logits_to_keep(model))

    def _get_forward_fn(self, use_block_table: bool) -> tuple[Callable[..., None], bool]:
        forward, use_graph = super()._get_forward_fn(use_block_table)
        return forward, use_graph and not self.shaper.placed


class _Scheduler(ChunkingScheduler):
    """The library's scheduler, which also counts what it does, shows rows their tokens and drops those that end."""

    before_step: Callable[[], None]
    on_dropped: Callable[[GenerationOutput], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.counters = LoopCounters()

    def add_waiting_request(self, state: RequestState) -> None:
        # A row that comes back carries the length of its first prompt.
        self.counters.preemptions += state._true_initial_tokens > 0
        super().add_waiting_request(state)

    def schedule_batch(self, token_budget: int, cache_budget: int) -> Any:
        scheduled = super().schedule_batch(token_budget, cache_budget)
        rows = scheduled[0]
        if rows:
            self.counters.note_step(len(rows), sum(row.has_new_token for row in rows))
        return scheduled

    def clear_cancelled_requests(self) -> list[RequestState]:
        """The library calls this before it schedules a step, and now and then while there is nothing to schedule."""
        self.before_step()
        for state in chain(self.active_requests.values(), self.waiting_requests.values()):
            row = state.logit_processor_kwargs[ROW]
            # What it said before a preemption has become part of its prompt.
            num_replayed = len(state.initial_tokens) - len(row.prompt_ids)
            for token_id in state.generated_tokens[len(row.token_ids) - num_replayed :]:
                row.take(token_id)
            if row.wants_to_leave:
                self.set_request_cancellation(state.request_id)
        dropped: list[RequestState] = super().clear_cancelled_requests()
        if dropped:
            # After a preemption the library takes in no row until another has finished, and forgets those that leave.
            self.block_new_requests = False
        for state in dropped:
            self.on_dropped(state.to_generation_output())
        return dropped


class _Router(OutputRouter):  # type: ignore[misc]
    """Hands ended rows to a callback on the loop's thread instead of queueing them."""

    def __init__(self, on_row_left: Callable[[GenerationOutput], None]) -> None:
        super().__init__()
        self._on_row_left = on_row_left

    def deliver(self, output: GenerationOutput) -> None:
        if output.is_finished():
            self._on_row_left(output)

    def deliver_batch(self, outputs: Sequence[GenerationOutput]) -> None:
        for output in outputs:
            self.deliver(output)


class _Manager(ContinuousBatchingManager):  # type: ignore[misc]
    """The library's manager with our router, shaper and runner, a daemon thread and word of its end."""

    def __init__(
        self,
        model: PreTrainedModel,
        limits: LoopLimits,
        on_row_left: Callable[[GenerationOutput], None],
        on_exit: Callable[[BaseException | None], None],
        turns: Turns,
    ) -> None:
        super().__init__(model, _generation_config(), _batching_config(limits))
        self.output_router = _Router(on_row_left)
        self._on_exit = on_exit
        self._turns = turns
        self._kept_keys_bytes = limits.kept_keys_bytes
        self._shaper = _Shaper()
        self.logit_processor = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([self._shaper]))
        self.logit_processor.tensors_required = 1

    def start(self) -> None:
        self.background_thread_status.clear()
        # A daemon, so that a process whose main thread has failed can end.
        self._generation_thread = threading.Thread(target=self._run_generation_loop, name="ovis-decode", daemon=True)
        self._generation_thread.start()

    def wake(self) -> None:
        """Ends the loop's wait for something to do. Any thread."""
        self._wake_up_loop.set()

    def _create_batch_processor(self) -> Any:
        processor = super()._create_batch_processor()
        processor.model_runner.__class__ = _ModelRunner
        processor.model_runner.shaper, processor.model_runner.packed = self._shaper, PackedModel.of(self.model)
        processor.model_runner.keeper = KeyKeeper.for_cache(
            processor.cache, self.continuous_batching_config.max_requests_per_batch, self._kept_keys_bytes
        )
        return processor

    def _generation_step(self) -> None:
        with self._turns.turn():
            super()._generation_step()

    def _run_generation_loop(self) -> None:
        try:
            super()._run_generation_loop()
        finally:
            self._on_exit(self.background_thread_status.fatal_error)
