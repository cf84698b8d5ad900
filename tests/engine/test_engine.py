"""The engine's public face."""

from __future__ import annotations

import random
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovis_engine import Completion, Engine, EngineConfig, Request, TiledImage, bundled_model_path, tile_image
from ovis_engine.errors import (
    ContextTooLongError,
    DuplicateRequestError,
    EngineClosedError,
    InvalidTilesError,
    RequestError,
    TooManyTilesError,
    TooManyTokensError,
)
from tests.engine.conftest import SMALL, TINY, picture, read_json

SAMPLES = bundled_model_path() / "samples"
RECEIPT = Path(__file__).parents[2] / "examples" / "receipt.png"
LONG = 600


def long_request(name: str) -> Request:
    return Request("Go on and on.", max_new_tokens=LONG, ignore_eos=True, request_id=name)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_bundled_model_reads_the_receipt_and_its_samples(dtype: str) -> None:
    truth = read_json(SAMPLES / "samples.json")
    files = {name: SAMPLES / name for name in truth} | {"receipt.png": RECEIPT}
    with Engine.from_pretrained(bundled_model_path(), EngineConfig(dtype=dtype)) as engine:  # type: ignore[arg-type]
        futures = {}
        for name, file in files.items():
            with Image.open(file) as image:
                tiled = tile_image(image, side=engine.side, max_partition=1)
            futures[name] = engine.submit(Request("Read the text.", (tiled,), max_new_tokens=320))
        read = {name: future.result(60) for name, future in futures.items()}
    assert read["receipt.png"].text == truth["receipt.png"]["truth"]
    assert {completion.finish_reason for completion in read.values()} == {"stop"}
    if dtype == "float32":
        assert {name: completion.text for name, completion in read.items()} == {
            name: entry["read"] for name, entry in truth.items()
        }


def test_a_completion_counts_what_it_used(engine: Engine) -> None:
    completion = engine.submit(
        Request("What?", (picture("wide.png"),), max_new_tokens=7, ignore_eos=True, request_id="counted")
    ).result(30)
    assert completion.request_id == "counted"
    assert completion.finish_reason == "length"
    assert (completion.num_tiles, completion.num_visual_tokens, completion.num_output_tokens) == (4, 1024, 7)
    request = Request("What?", (picture("wide.png"),))
    assert completion.num_prompt_tokens == engine.count_prompt_tokens(request)
    assert completion.engine_s > 0


def test_the_end_token_stops_and_is_not_part_of_the_text() -> None:
    with Engine.from_pretrained(bundled_model_path(), EngineConfig(dtype="float32")) as engine:
        completion = engine.submit(Request("Hi", max_new_tokens=50)).result(30)
    assert completion.finish_reason == "stop"
    assert completion.num_output_tokens == len(completion.token_ids) + 1


def test_many_requests_share_steps() -> None:
    with Engine.from_pretrained(TINY, replace(SMALL, max_running_requests=12)) as engine:
        futures = [engine.submit(Request(f"Go {index}.", max_new_tokens=64, ignore_eos=True)) for index in range(12)]
        for future in futures:
            future.result(30)
        stats = engine.stats()
    assert stats.output_tokens == 12 * 64
    assert stats.steps < 3 * 64
    assert stats.last_step_rows >= 1


def test_rows_beyond_the_limit_wait(engine: Engine) -> None:
    names = [f"row-{index}" for index in range(SMALL.max_running_requests + 4)]
    futures = [engine.submit(long_request(name)) for name in names]
    stats = engine.stats()
    assert (stats.running, stats.waiting) == (SMALL.max_running_requests, 4)
    for name in names:
        assert engine.cancel(name)
    assert {future.result(30).finish_reason for future in futures} == {"canceled"}


def test_a_canceled_row_is_freed_and_keeps_what_it_wrote(engine: Engine) -> None:
    before = engine.stats().steps
    future = engine.submit(replace(long_request("stop me"), images=(picture("tiny20.png"),)))
    while engine.stats().steps < before + 3:
        pass
    assert engine.cancel("stop me")
    completion = future.result(30)
    assert completion.finish_reason == "canceled"
    assert 0 < completion.num_output_tokens < LONG
    stats = engine.stats()
    assert (stats.running, stats.pool_rows_used, stats.cache_tokens_used) == (0, 0, 0)
    assert not engine.cancel("stop me")


def test_canceling_a_row_that_ends_by_itself_leaves_the_next_of_its_name_alone(engine: Engine) -> None:
    # Given a row that is canceled while it tells of a token
    again: Future[Future[Completion]] = Future()
    request = Request("Go on.", max_new_tokens=50, ignore_eos=True, request_id="again")
    first = engine.submit(request, on_delta=lambda _delta: engine.cancel("again"))
    # When its id is used again at the moment of its end
    longer = replace(request, max_new_tokens=4)
    first.add_done_callback(lambda _ended: again.set_result(engine.submit(longer)))
    # Then nobody has canceled the second
    assert again.result(30).result(30).finish_reason == "length"


def test_an_unknown_request_cannot_be_canceled(engine: Engine) -> None:
    assert not engine.cancel("nobody")


def test_a_holder_cannot_break_the_engine_by_canceling_its_future(engine: Engine) -> None:
    future = engine.submit(Request("Hello.", max_new_tokens=3, ignore_eos=True))
    assert not future.cancel()
    assert len(future.result(30).token_ids) == 3


def test_the_same_id_twice_is_refused_while_the_first_is_there(engine: Engine) -> None:
    future = engine.submit(long_request("twice"))
    with pytest.raises(DuplicateRequestError):
        engine.submit(long_request("twice"))
    engine.cancel("twice")
    future.result(30)
    again = engine.submit(replace(long_request("twice"), max_new_tokens=1))
    assert again.result(30).finish_reason == "length"


def test_what_exceeds_the_context_is_refused_with_the_numbers() -> None:
    config = replace(SMALL, kv_cache_tokens=40960)
    with Engine.from_pretrained(TINY, config) as engine:
        with pytest.raises(ContextTooLongError, match=r"30000 make .* context is 32768") as caught:
            engine.submit(Request("x" * 9000, max_new_tokens=30000))
        assert caught.value.code == "context_too_long"
        assert engine.max_context_tokens == 32768


def test_what_exceeds_the_cache_is_refused_with_the_numbers(engine: Engine) -> None:
    with pytest.raises(TooManyTokensError, match="KV cache holds 16384") as caught:
        engine.submit(Request("Hello.", max_new_tokens=16384))
    assert caught.value.code == "too_many_tokens"
    assert engine.max_context_tokens == 16384
    most = 16384 - engine.count_prompt_tokens(Request("Hello."))
    future = engine.submit(Request("Hello.", max_new_tokens=most, ignore_eos=True, request_id="largest"))
    assert engine.cancel("largest")
    future.result(30)


def test_what_exceeds_the_pool_is_refused_with_the_numbers() -> None:
    with Engine.from_pretrained(TINY, replace(SMALL, visual_pool_rows=3 * 256)) as engine:
        with pytest.raises(TooManyTilesError, match="4 tiles, the visual pool holds 3"):
            engine.submit(Request("What?", (picture("wide.png"),), max_new_tokens=1))
        assert engine.submit(Request("What?", (picture("wide.png", 1),), max_new_tokens=1)).result(30).num_tiles == 1


def test_a_request_that_waits_for_pool_room_can_be_canceled_or_goes_on() -> None:
    with Engine.from_pretrained(TINY, replace(SMALL, visual_pool_rows=256)) as engine:
        # Given a pool whose only slot a long request holds
        first = engine.submit(replace(long_request("holder"), images=(picture("tiny20.png"),)))
        while engine.stats().running == 0:
            pass
        second, third = (
            engine.submit(Request("What?", (picture(name, 1),), max_new_tokens=2, ignore_eos=True, request_id=name))
            for name in ("gray.png", "photo.jpg")
        )
        # When the next in line is canceled
        assert engine.cancel("gray.png")
        # Then it ends at once, and the one after it once the slot is free
        assert second.result(30).finish_reason == "canceled"
        assert not third.done()
        assert engine.stats().waiting == 1
        assert engine.cancel("holder")
        assert first.result(30).finish_reason == "canceled"
        assert third.result(30).finish_reason == "length"


def test_closing_does_not_wait_for_pool_room() -> None:
    engine = Engine.from_pretrained(TINY, replace(SMALL, visual_pool_rows=256))
    futures = [
        engine.submit(replace(long_request(name), images=(picture(name, 1),))) for name in ("tiny20.png", "gray.png")
    ]
    while engine.stats().running == 0:
        pass
    engine.close()
    assert all(isinstance(future.exception(30), EngineClosedError) for future in futures)


def test_tiles_for_another_model_are_refused(engine: Engine) -> None:
    tiled = tile_image(Image.new("RGB", (50, 50)), side=384, max_partition=1)
    with pytest.raises(InvalidTilesError, match="384 px, the model wants 448 px"):
        engine.submit(Request("What?", (tiled,)))


def test_a_tile_that_is_a_mirrored_view_is_read_as_its_copy_is(engine: Engine) -> None:
    pixels = np.random.default_rng(3).integers(0, 255, (448, 448, 3), np.uint8)
    mirrored = pixels[:, ::-1]
    tokens = [
        engine.submit(
            Request("What?", (TiledImage(1, 1, 448, 448, 448, (tile,)),), max_new_tokens=6, ignore_eos=True)
        ).result(30)
        for tile in (mirrored, mirrored.copy())
    ]
    assert tokens[0].token_ids == tokens[1].token_ids


def test_no_room_for_output_is_refused(engine: Engine) -> None:
    with pytest.raises(RequestError):
        engine.submit(Request("What?", max_new_tokens=0))


def test_a_closed_engine_fails_what_is_left_and_refuses_more() -> None:
    engine = Engine.from_pretrained(TINY, SMALL)
    left = [engine.submit(long_request(f"left-{index}")) for index in range(SMALL.max_running_requests + 2)]
    engine.close()
    engine.close()
    for future in left:
        assert isinstance(future.exception(30), EngineClosedError)
    with pytest.raises(EngineClosedError):
        engine.submit(Request("Hello."))
    assert engine.stats().running == 0


def test_several_threads_may_close_at_once() -> None:
    for _ in range(3):
        engine = Engine.from_pretrained(TINY, SMALL)
        left = engine.submit(long_request("left"))
        with ThreadPoolExecutor(4) as threads:
            for closed in [threads.submit(engine.close) for _ in range(4)]:
                closed.result(30)
        assert isinstance(left.exception(30), EngineClosedError)


def test_any_mix_of_threads_submitting_and_canceling_ends_every_request_once(engine: Engine) -> None:
    images = [picture(name, 1) for name in ("tiny20.png", "gray.png", "photo.jpg", "wide.png")]
    ended: list[Future[Completion]] = []

    def caller(seed: int) -> None:
        chance = random.Random(seed)
        for turn in range(6):
            name = f"mix-{seed}-{turn}"
            chosen = tuple(chance.sample(images, chance.randrange(3)))
            request = Request("Hm?", chosen, max_new_tokens=chance.choice((1, 5, 40)), ignore_eos=True, request_id=name)
            future = engine.submit(request)
            future.add_done_callback(ended.append)
            if chance.random() < 0.5:
                engine.cancel(name)
            if chance.random() < 0.5:
                future.result(60)

    callers = [threading.Thread(target=caller, args=(seed,)) for seed in range(6)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    last = engine.submit(Request("Last.", max_new_tokens=1))
    last.result(60)
    while len(ended) < 36:
        engine.submit(Request("Wait.", max_new_tokens=1)).result(60)
    assert all(future.exception() is None for future in ended)
    stats = engine.stats()
    assert (stats.waiting, stats.running, stats.pool_rows_used, stats.cache_tokens_used) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "bad", [{"page_size": 3}, {"max_running_requests": 0}, {"num_threads": 0}, {"dtype": "float16"}], ids=str
)
def test_sizes_out_of_bounds_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        EngineConfig(**bad)  # type: ignore[arg-type]
