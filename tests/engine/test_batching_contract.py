"""What `ovis_engine.batching`, `chunked_prefill` and `steps` rely on inside transformers. When a new release
breaks one of these, read those modules again before raising the pin."""

from __future__ import annotations

import inspect
import threading
from dataclasses import replace
from typing import Any

import pytest
import transformers
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching import continuous_api
from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.generation.continuous_batching.cache_allocators import FullAttentionCacheAllocator
from transformers.generation.continuous_batching.cache_allocators.cache_allocator import BlockLedger
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
)
from transformers.generation.continuous_batching.model_runner import ModelRunner, infer_max_single_request_tokens
from transformers.generation.continuous_batching.requests import (
    FutureRequestState,
    GenerationOutput,
    RequestState,
    RequestStatus,
)
from transformers.generation.continuous_batching.scheduler import SCHEDULER_MAPPING, FIFOScheduler
from transformers.utils.generic import is_flash_attention_requested

from ovis_engine.attention import PACKED_ATTENTION, packed_attention
from ovis_engine.batching import DecodeLoop
from ovis_engine.row import Row
from ovis_engine.sampling import Sampling
from ovis_engine.steps import STEP, Step
from ovis_engine.usage import LoopLimits, RowEnd
from tests.engine.conftest import load_tiny

Manager = continuous_api.ContinuousBatchingManager
LIMITS = LoopLimits(num_blocks=16, page_size=16, max_batch_tokens=64, max_rows=4)


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_the_release_is_the_one_that_was_read() -> None:
    assert transformers.__version__ == "5.23.0"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Manager.__init__, ["self", "model", "generation_config", "continuous_batching_config", "workload_hints"]),
        (Manager.stop, ["self", "block", "timeout", "keep_for_next_session", "hard_stop"]),
        (Manager._run_generation_loop, ["self"]),
        (Manager.warmup, ["self"]),
        (Manager.pause, ["self"]),
        (FIFOScheduler.schedule_batch, ["self", "token_budget", "cache_budget"]),
        (
            FIFOScheduler._schedule_request,
            ["self", "state", "request_tokens", "token_budget", "request_ids_to_remove_from_waiting"],
        ),
        (FIFOScheduler.clear_cancelled_requests, ["self"]),
        (FIFOScheduler.add_waiting_request, ["self", "state"]),
        (continuous_api.OutputRouter.deliver, ["self", "output"]),
        (continuous_api.OutputRouter.deliver_batch, ["self", "outputs"]),
        (PagedAttentionCache.update, ["self", "key_states", "value_states", "layer_idx", "kwargs"]),
        (
            FullAttentionCacheAllocator.update,
            ["self", "key_states", "value_states", "layer_idx", "read_index", "write_index"],
        ),
        (ModelRunner.compute_batch, ["self", "model", "batch_data"]),
        (PagedAttentionCache.compute_free_capacity, ["self", "relative"]),
        (PagedAttentionCache.evict_cached_blocks, ["self"]),
        (Manager._create_batch_processor, ["self"]),
        (ModelRunner._get_forward_fn, ["self", "use_block_table"]),
        (infer_max_single_request_tokens, ["cache"]),
        (ContinuousBatchingLogitsProcessor.prepare_tensor_args, ["self", "requests_with_new_token"]),
        (ContinuousBatchingLogitsProcessor.__call__, ["self", "scores", "tensor_arg"]),
        (
            ContinuousBatchingLogitsProcessorList.__init__,
            ["self", "logits_processor", "per_request_processors", "drop_unsupported_processors"],
        ),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_what_we_call_or_override_has_the_same_parameters(function: object, expected: list[str]) -> None:
    assert parameters(function) == expected


def test_requests_are_added_with_their_own_limit_and_end_tokens() -> None:
    assert {"input_ids", "request_id", "max_new_tokens", "eos_token_id"} <= set(parameters(Manager.add_request))


def test_outputs_and_rows_have_the_fields_that_are_read() -> None:
    fields = set(GenerationOutput.__dataclass_fields__)
    assert {"request_id", "generated_tokens", "error", "status"} <= fields
    assert RequestStatus.FAILED > RequestStatus.FINISHED
    assert "has_new_token" in FutureRequestState.__slots__
    assert {
        "request_id",
        "_true_initial_tokens",
        "initial_tokens",
        "generated_tokens",
        "logit_processor_kwargs",
    } <= set(RequestState.__dataclass_fields__)
    assert "cached_blocks" in vars(BlockLedger())
    assert FullAttentionCacheAllocator.layer_type == "full_attention"


def test_the_batching_configuration_has_the_fields_that_are_set() -> None:
    assert {
        "page_size",
        "num_blocks",
        "max_batch_tokens",
        "max_requests_per_batch",
        "scheduler_type",
        "use_async_batching",
        "auto_switch_to_flash",
    } <= set(ContinuousBatchingConfig.__dataclass_fields__)


def test_a_scheduler_is_found_by_name() -> None:
    assert SCHEDULER_MAPPING["fifo"] is FIFOScheduler
    assert "SCHEDULER_MAPPING" in inspect.getsource(Manager._create_batch_processor)


def test_an_attention_named_flash_gets_boundaries_instead_of_masks() -> None:
    assert is_flash_attention_requested(requested_attention_implementation=PACKED_ATTENTION)


def test_a_scheduler_knows_which_rows_decode() -> None:
    loop = DecodeLoop(load_tiny().language_model, LIMITS, on_row_end=print, on_exit=print)
    assert {"active_requests", "waiting_requests"} <= set(vars(loop._scheduler))
    assert {"status", "initial_tokens"} <= {field.lstrip("_") for field in RequestState.__dataclass_fields__}
    assert RequestStatus.DECODING != RequestStatus.PREFILLING


def test_the_cache_shows_its_keys_token_by_token_and_a_step_its_requests() -> None:
    model = load_tiny().language_model
    processor = DecodeLoop(model, LIMITS, on_row_end=print, on_exit=print)._manager.batch_processor
    (allocator,) = processor.cache.cache_allocators.values()
    assert len(allocator.layer_indices) == model.config.num_hidden_layers
    for states in allocator._kv_token_views[0]:
        assert states.shape[1:] == (allocator.num_key_value_heads, allocator.head_dim)
    assert "self.requests_in_batch" in inspect.getsource(type(processor.inputs_and_outputs))


def test_attention_sees_decoding_rows_first_and_an_index_of_their_keys() -> None:
    seen: list[tuple[list[int], int, int]] = []
    planned: list[Step] = []

    def look(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: None, **kwargs: Any) -> Any:
        queries = kwargs["cu_seq_lens_q"].diff().tolist()
        planned.append(kwargs[STEP])
        if not seen or seen[-1][0] != queries:
            (ends,) = kwargs["cu_seq_lens_k"].values()
            (index,) = kwargs["read_index"]
            seen.append((queries, int(ends[-1]), index.numel()))
        return packed_attention(module, query, key, value, mask, **kwargs)

    model = load_tiny().language_model
    AttentionInterface.register(PACKED_ATTENTION, look)
    ended: list[RowEnd] = []
    loop = DecodeLoop(model, LIMITS, on_row_end=ended.append, on_exit=print)
    loop.add(Row("decoding", [5, 6, 7], max_new_tokens=40))
    loop.start()
    while loop.usage().output_tokens < 2:
        pass
    loop.add(Row("new", list(range(5, 25)), max_new_tokens=2))
    while len(ended) < 2:
        loop.flush_prefix_cache()
    loop.stop()
    AttentionInterface.register(PACKED_ATTENTION, packed_attention)
    mixed = [entry for entry in seen if len(entry[0]) == 2 and max(entry[0]) > 1]
    assert [queries for queries, _, _ in mixed] == [[1, 20]]
    assert all(isinstance(step, Step) for step in planned)
    assert all(num_keys == num_indices for queries, num_keys, num_indices in seen if len(queries) == 2)


def test_a_loop_reports_rows_cancellations_and_its_end() -> None:
    ended: list[RowEnd] = []
    exits: list[BaseException | None] = []
    loop = DecodeLoop(load_tiny().language_model, LIMITS, on_row_end=ended.append, on_exit=exits.append)
    # Everything is queued before the loop starts, so the order of events is fixed.
    loop.add(Row("short", [5, 6, 7], max_new_tokens=3))
    loop.add(Row("long", [5, 6, 7], max_new_tokens=200))
    loop.cancel("long")
    assert loop.usage().cache_tokens_used == 0
    loop.start()
    loop.flush_prefix_cache()
    while len(ended) < 2:
        loop.flush_prefix_cache()  # waits for the loop to come round
    loop.stop()
    assert {end.row.request_id: (len(end.row.token_ids), end.reason) for end in ended} == {
        "long": (0, "canceled"),
        "short": (3, "length"),
    }
    assert exits == [None]
    assert (loop.usage().steps, loop.usage().output_tokens) == (3, 3)


def test_a_loop_without_work_waits_for_an_event_that_is_ours_to_set() -> None:
    loop = DecodeLoop(load_tiny().language_model, LIMITS, on_row_end=print, on_exit=print)
    assert isinstance(loop._manager._wake_up_loop, threading.Event)
    loop._manager.wake()
    assert loop._manager._wake_up_loop.is_set()


def test_the_cache_is_at_least_as_large_as_asked_for() -> None:
    loop = DecodeLoop(load_tiny().language_model, LIMITS, on_row_end=print, on_exit=print)
    assert loop.cache_tokens >= LIMITS.num_blocks * LIMITS.page_size
    assert loop.usage().cache_tokens_total == loop.max_row_tokens == loop.cache_tokens


def test_rows_that_leave_after_a_preemption_make_room_for_those_that_wait() -> None:
    """The library takes in no row after a preemption until one finishes; one that is dropped must count as well."""
    ended: list[RowEnd] = []
    tight = replace(LIMITS, num_blocks=6)
    leaving: set[str] = set()

    def leave() -> None:
        if loop.usage().preemptions and not leaving:
            leaving.update(rows[:2])
            for name in leaving:
                loop.cancel(name)

    loop = DecodeLoop(load_tiny().language_model, tight, on_row_end=ended.append, on_exit=print, before_step=leave)
    rows = [f"row-{index}" for index in range(3)]
    for index, name in enumerate(rows):
        loop.add(Row(name, [5 + index, 6, 7], max_new_tokens=60))
    loop.start()
    while len(ended) < 3:
        loop.flush_prefix_cache()
    loop.stop()
    assert {end.row.request_id: end.reason for end in ended} == {
        "row-0": "canceled",
        "row-1": "canceled",
        "row-2": "length",
    }


def test_a_step_that_shapes_logits_replays_no_graph() -> None:
    loop = DecodeLoop(load_tiny().language_model, LIMITS, on_row_end=print, on_exit=print)
    runner = loop._manager.batch_processor.model_runner
    runner.use_cuda_graph_decode = True
    assert runner._get_forward_fn(use_block_table=True)[1]
    runner.shaper.placed = [(0, Row("shaped", [5], max_new_tokens=1, sampling=Sampling(temperature=1.0)))]
    assert not runner._get_forward_fn(use_block_table=True)[1]
