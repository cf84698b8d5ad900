"""Any mix of requests, sizes, cancels and preemptions gives the tokens of each request alone, and leaks nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovis_engine import Completion, Delta, Engine, JsonSchema, Regex, Request, Sampling, Turn
from tests.engine.conftest import SMALL, TINY, picture

#: Cache that the largest request below just fits.
LEAST_CACHE = 640
HOT = Sampling(temperature=1.2, top_p=0.9, seed=11)
RECORD = {
    "type": "object",
    "properties": {"a": {"type": "string", "maxLength": 6}, "b": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


def candidates() -> list[Request]:
    """Requests of every kind, each of at most `LEAST_CACHE` tokens."""
    ship, gray, photo = (picture(name, 1) for name in ("tiny20.png", "gray.png", "photo.jpg"))
    history = (
        Turn("user", (ship, "\nWhat is it?")),
        Turn("assistant", ("A ship.",)),
        Turn("user", ("Which colour?",)),
    )
    long = {"max_new_tokens": 40, "ignore_eos": True}
    return [
        Request("How many ships go by?", **long),
        Request("How many ships went by, and when?", max_new_tokens=90, ignore_eos=True),
        Request("What?", (ship,), **long),
        Request("What?", (gray,), **long),
        Request("What else is there to see?", (photo,), **long),
        Request("Which?", (ship, gray), **long),
        Request(turns=history, **long),
        Request("Sing.", sampling=HOT, **long),
        Request("Sing.", (ship,), sampling=replace(HOT, top_k=7, repetition_penalty=1.3), **long),
        Request("Tell.", sampling=Sampling(repetition_penalty=1.4), **long),
        Request("Record.", (gray,), constraint=JsonSchema(RECORD), max_new_tokens=60),
        Request("Record.", constraint=Regex("([a-d]{2} ){10}"), sampling=HOT, max_new_tokens=60),
        Request("Until.", stop=("e", "s"), **long),
        Request("Ends by itself, perhaps.", max_new_tokens=30),
    ]


@dataclass(frozen=True)
class Alone:
    """The requests, and what each gives alone."""

    requests: list[Request]
    completions: list[Completion]


@pytest.fixture(scope="module")
def alone() -> Iterator[Alone]:
    requests = candidates()
    with Engine.from_pretrained(TINY, SMALL) as engine:
        yield Alone(requests, [engine.submit(request).result(60) for request in requests])


sizes = st.fixed_dictionaries(
    {
        "max_running_requests": st.integers(1, 10),
        "max_batch_tokens": st.sampled_from([10, 33, 128, 700]),
        "page_size": st.sampled_from([4, 16, 64]),
        "kv_cache_tokens": st.sampled_from([LEAST_CACHE, 900, 4000]),
        "visual_pool_rows": st.sampled_from([2 * 256, 3 * 256, 20 * 256]),
        "vision_batch_tiles": st.integers(1, 4),
        "long_prompt_tokens": st.sampled_from([1, 40, 512]),
        "chunk_tokens": st.sampled_from([3, 24, 200]),
    }
)
#: Which candidate, whether it streams, and after how many of its tokens it is canceled (0: at once, 99: not).
picks = st.lists(
    st.tuples(st.integers(0, 13), st.booleans(), st.sampled_from([99, 99, 99, 0, 3, 17])), min_size=1, max_size=14
)


def run_mix(alone: Alone, changes: dict[str, int], chosen: list[tuple[int, bool, int]]) -> int:
    """Runs a mix twice over in one engine, under the same ids, and compares; returns the preemptions."""
    with Engine.from_pretrained(TINY, replace(SMALL, **changes)) as engine:
        for _again in range(2):
            futures = [
                submit(engine, replace(alone.requests[index], request_id=f"row-{place}"), streams, cancel_at)
                for place, (index, streams, cancel_at) in enumerate(chosen)
            ]
            for (index, _, cancel_at), (future, deltas) in zip(chosen, futures, strict=True):
                check(future.result(120), alone.completions[index], deltas, may_be_canceled=cancel_at < 99)
        stats = engine.stats()
        assert (stats.waiting, stats.running, stats.pool_rows_used, stats.cache_tokens_used) == (0, 0, 0, 0)
        return stats.preemptions


def submit(
    engine: Engine, request: Request, streams: bool, cancel_at: int
) -> tuple[Future[Completion], list[Delta] | None]:
    deltas: list[Delta] = []

    def on_delta(delta: Delta) -> None:
        deltas.append(delta)
        if delta.num_output_tokens >= cancel_at:
            engine.cancel(request.request_id)

    watched = streams or 0 < cancel_at < 99
    future = engine.submit(request, on_delta if watched else None)
    if cancel_at == 0:
        engine.cancel(request.request_id)
    return future, deltas if watched else None


def check(got: Completion, expected: Completion, deltas: list[Delta] | None, *, may_be_canceled: bool) -> None:
    if deltas is not None:
        assert "".join(delta.text for delta in deltas) == got.text
    if got.finish_reason == "canceled":
        assert may_be_canceled
        assert got.token_ids == expected.token_ids[: len(got.token_ids)]
        return
    assert (got.token_ids, got.text, got.finish_reason) == (
        expected.token_ids,
        expected.text,
        expected.finish_reason,
    )


@given(changes=sizes, chosen=picks)
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_any_mix_gives_each_request_the_tokens_it_has_alone(
    alone: Alone, changes: dict[str, int], chosen: list[tuple[int, bool, int]]
) -> None:
    run_mix(alone, changes, chosen)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@given(changes=sizes, chosen=picks)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_more_mixes_do(alone: Alone, changes: dict[str, int], chosen: list[tuple[int, bool, int]]) -> None:
    run_mix(alone, changes, chosen)


def test_a_mix_under_pressure_is_preempted_and_still_the_same(alone: Alone) -> None:
    changes = {"kv_cache_tokens": LEAST_CACHE, "page_size": 4, "max_running_requests": 10, "max_batch_tokens": 33}
    everything = [(index, index % 2 == 0, 99) for index in range(14)]
    assert run_mix(alone, changes, everything) > 0
