"""Streaming, stop strings, cancel and deadlines through the engine."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovis_engine import CallbackError, Delta, Engine, EngineClosedError, Request, RequestError, Sampling
from tests.engine.conftest import SMALL, TINY, picture


def talk(name: str, tokens: int = 600) -> Request:
    return Request("Go on and on.", max_new_tokens=tokens, ignore_eos=True, request_id=name)


def noisy(seed: int, tokens: int = 40) -> Request:
    """Random tokens of random weights: every kind of broken UTF-8."""
    sampling = Sampling(temperature=1.5, seed=seed)
    return Request("Go.", max_new_tokens=tokens, ignore_eos=True, sampling=sampling, request_id=f"noisy-{seed}")


def test_a_stream_ends_with_the_completion_and_adds_up_to_it(engine: Engine) -> None:
    with engine.stream(noisy(1)) as stream:
        deltas = list(stream)
        completion = stream.result(1)
    assert "".join(delta.text for delta in deltas) == completion.text
    assert len(deltas) > 10
    assert deltas[-1].num_output_tokens == completion.num_output_tokens == 40
    with pytest.raises(StopIteration):
        next(stream)


@given(
    seed=st.integers(0, 999),
    start=st.integers(0, 40),
    size=st.integers(1, 4),
    extra=st.text("aeinrst ", max_size=2),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_stop_strings_cut_the_text_and_no_delta_shows_them(
    engine: Engine, seed: int, start: int, size: int, extra: str
) -> None:
    whole = engine.submit(replace(noisy(seed), request_id=f"whole-{seed}")).result(30).text
    stops = tuple(stop for stop in (whole[start : start + size], extra) if stop)
    deltas: list[Delta] = []
    request = replace(noisy(seed), stop=stops, request_id=f"cut-{seed}-{start}-{size}")
    completion = engine.submit(request, deltas.append).result(30)
    found = min(((place + len(stop), place) for stop in stops if (place := whole.find(stop)) >= 0), default=None)
    assert completion.text == (whole if found is None else whole[: found[1]])
    assert completion.finish_reason == ("length" if found is None else "stop")
    assert "".join(delta.text for delta in deltas) == completion.text
    assert all(delta.offset == completion.text.index(delta.text, delta.offset) for delta in deltas)


def test_the_first_delta_comes_long_before_the_end(engine: Engine) -> None:
    with engine.stream(talk("early")) as stream:
        first = next(stream)
        assert not stream.future.done()
        assert stream.cancel()
        rest = list(stream)
        completion = stream.result(30)
    assert completion.finish_reason == "canceled"
    assert completion.text == "".join(delta.text for delta in (first, *rest))
    assert not stream.cancel()


def test_leaving_a_stream_frees_its_row_within_two_steps(engine: Engine) -> None:
    with engine.stream(talk("left")) as stream:
        next(stream)
        before = engine.stats().steps
    completion = stream.result(30)
    assert completion.finish_reason == "canceled"
    # The delta that was read and the count were taken while the row went on.
    assert engine.stats().steps - before <= 3
    stats = engine.stats()
    assert (stats.running, stats.cache_tokens_used) == (0, 0)


def test_a_cancel_from_within_a_delta_ends_the_row_before_its_next_step(engine: Engine) -> None:
    seen: list[Delta] = []

    def stop_at_five(delta: Delta) -> None:
        seen.append(delta)
        if delta.num_output_tokens >= 5:
            engine.cancel("five")

    completion = engine.submit(talk("five"), stop_at_five).result(30)
    assert completion.finish_reason == "canceled"
    assert completion.num_output_tokens == seen[-1].num_output_tokens
    assert 5 <= completion.num_output_tokens <= 8


def test_a_callback_that_raises_ends_its_request_alone(engine: Engine) -> None:
    def fail(_delta: Delta) -> None:
        raise ValueError("the reader has gone")

    neighbour = engine.submit(talk("neighbour", 30))
    error = engine.submit(talk("broken"), fail).exception(30)
    assert isinstance(error, CallbackError)
    assert isinstance(error.__cause__, ValueError)
    assert neighbour.result(30).num_output_tokens == 30


def test_a_stream_of_a_closed_engine_raises_instead_of_ending() -> None:
    engine = Engine.from_pretrained(TINY, SMALL)
    stream = engine.stream(talk("cut off", 3000))
    next(stream)
    engine.close()
    with pytest.raises(EngineClosedError):
        list(stream)


def test_a_bad_request_raises_before_there_is_a_stream(engine: Engine) -> None:
    with pytest.raises(RequestError):
        engine.stream(Request("x", max_new_tokens=0))


def test_a_stop_string_frees_the_row_at_once_and_keeps_its_tokens(engine: Engine) -> None:
    whole = engine.submit(talk("whole", 60)).result(30)
    stop = whole.text[10:14]
    before = engine.stats().steps
    cut = engine.submit(replace(talk("cut", 600), stop=(stop,))).result(30)
    assert cut.finish_reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.token_ids == whole.token_ids[: len(cut.token_ids)]
    assert engine.stats().steps - before == cut.num_output_tokens


def test_a_stop_string_beside_other_rows_leaves_them_alone(engine: Engine) -> None:
    alone = [engine.submit(talk(f"alone-{index}", 40)).result(30).token_ids for index in range(3)]
    futures = [engine.submit(talk(f"beside-{index}", 40)) for index in range(3)]
    cut = engine.submit(replace(talk("cut", 40), stop=("a", "e", "n"))).result(30)
    assert cut.finish_reason == "stop"
    assert [future.result(30).token_ids for future in futures] == alone


def test_deadlines_end_running_rows_with_what_there_is(engine: Engine) -> None:
    started = time.monotonic()
    late = engine.submit(replace(talk("late", 8000), deadline_s=0.5))
    calm = engine.submit(replace(talk("calm", 20), deadline_s=60))
    completion = late.result(30)
    assert completion.finish_reason == "deadline"
    assert 0 < completion.num_output_tokens < 8000
    assert 0.5 <= time.monotonic() - started < 5
    assert calm.result(30).finish_reason == "length"
    assert engine.stats().running == 0


def test_deadlines_end_requests_that_wait() -> None:
    config = replace(SMALL, visual_pool_rows=256, max_running_requests=2)
    with Engine.from_pretrained(TINY, config) as engine:
        # Given a pool whose only slot and one of two rows are held, and a second row that is held too
        holder = engine.submit(replace(talk("holder", 8000), images=(picture("tiny20.png"),)))
        second = engine.submit(talk("second", 8000))
        while engine.stats().running < 2:
            pass
        # When a picture that waits for the slot and a text that waits for a row are overdue
        picture_waits = engine.submit(replace(talk("picture"), images=(picture("gray.png", 1),), deadline_s=0.2))
        text_waits = engine.submit(replace(talk("text"), deadline_s=0.2))
        # Then both end with nothing, while the rows go on
        for future in (picture_waits, text_waits):
            completion = future.result(30)
            assert (completion.finish_reason, completion.num_output_tokens, completion.text) == ("deadline", 0, "")
        assert not holder.done()
        for name in ("holder", "second"):
            engine.cancel(name)
        assert holder.result(30).finish_reason == second.result(30).finish_reason == "canceled"


def test_stats_tell_the_rate_and_the_load(engine: Engine) -> None:
    futures = [engine.submit(talk(f"load-{index}", 300)) for index in range(4)]
    while engine.stats().running < 4 or engine.stats().cache_tokens_used == 0:
        pass
    for future in futures:
        future.result(60)
    stats = engine.stats()
    assert stats.tokens_per_second > 1
    assert (stats.running, stats.waiting, stats.cache_tokens_used) == (0, 0, 0)
