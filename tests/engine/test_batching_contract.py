"""What `ovis_engine.batching` relies on inside transformers. When a new release breaks one of these, read that module
again before raising the pin."""

from __future__ import annotations

import inspect

import pytest
import transformers
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching import continuous_api
from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.generation.continuous_batching.cache_allocators import FullAttentionCacheAllocator
from transformers.generation.continuous_batching.cache_allocators.cache_allocator import BlockLedger
from transformers.generation.continuous_batching.requests import (
    FutureRequestState,
    GenerationOutput,
    RequestState,
    RequestStatus,
)
from transformers.generation.continuous_batching.scheduler import SCHEDULER_MAPPING, FIFOScheduler
from transformers.utils.generic import is_flash_attention_requested

from ovis_engine.attention import CPU_ATTENTION
from ovis_engine.batching import DecodeLoop, LoopLimits, RowEnd
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
        (Manager.cancel_request, ["self", "request_id"]),
        (Manager.warmup, ["self"]),
        (Manager.pause, ["self"]),
        (FIFOScheduler.schedule_batch, ["self", "token_budget", "cache_budget"]),
        (FIFOScheduler.clear_cancelled_requests, ["self"]),
        (FIFOScheduler.add_waiting_request, ["self", "state"]),
        (continuous_api.OutputRouter.deliver, ["self", "output"]),
        (continuous_api.OutputRouter.deliver_batch, ["self", "outputs"]),
        (PagedAttentionCache.update, ["self", "key_states", "value_states", "layer_idx", "kwargs"]),
        (PagedAttentionCache.compute_free_capacity, ["self", "relative"]),
        (PagedAttentionCache.evict_cached_blocks, ["self"]),
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
    assert {"request_id", "_true_initial_tokens"} <= set(RequestState.__dataclass_fields__)
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
    assert is_flash_attention_requested(requested_attention_implementation=CPU_ATTENTION)


def test_a_loop_reports_rows_cancellations_and_its_end() -> None:
    ended: list[RowEnd] = []
    exits: list[BaseException | None] = []
    loop = DecodeLoop(load_tiny().language_model, LIMITS, on_row_end=ended.append, on_exit=exits.append)
    # Everything is queued before the loop starts, so the order of events is fixed.
    loop.add("short", [5, 6, 7], max_new_tokens=3, eos_token_ids=())
    loop.add("long", [5, 6, 7], max_new_tokens=200, eos_token_ids=())
    loop.cancel("long")
    assert loop.usage().cache_tokens_used == 0
    loop.start()
    loop.flush_prefix_cache()
    while len(ended) < 2:
        loop.flush_prefix_cache()  # waits for the loop to come round
    loop.stop()
    assert {row.request_id: (len(row.token_ids), row.canceled) for row in ended} == {
        "long": (0, True),
        "short": (3, False),
    }
    assert exits == [None]
    assert (loop.usage().steps, loop.usage().output_tokens) == (3, 3)


def test_the_cache_is_at_least_as_large_as_asked_for() -> None:
    loop = DecodeLoop(load_tiny().language_model, LIMITS, on_row_end=print, on_exit=print)
    assert loop.num_blocks >= LIMITS.num_blocks
    assert loop.usage().cache_tokens_total == loop.num_blocks * LIMITS.page_size
