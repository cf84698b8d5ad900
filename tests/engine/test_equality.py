"""The same tokens alone, batched, chunked, under page pressure, over id rewinds, and by plain ``generate()``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch

from ovis_engine.batching import DecodeLoop
from ovis_engine.chat import QwenChat
from ovis_engine.checkpoint import OvisModel
from ovis_engine.dispatch import Dispatcher
from ovis_engine.engine import Engine
from ovis_engine.front import VisionFront
from ovis_engine.job import Job
from ovis_engine.prompt import IMAGE_START, TILE_ATOM, Prompter, PromptLayout, Turn
from ovis_engine.request import EngineConfig, Request
from ovis_engine.text import Detokenizer
from ovis_engine.usage import LoopLimits, RowEnd
from ovis_engine.vision import to_pixels
from tests.engine.conftest import SMALL, TINY, load_tiny, picture

NUM_TOKENS = 20
Tokens = tuple[int, ...]


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    """Twelve requests: text, one tile, grids of several tiles, three pictures, frames, history."""
    single = [("tiny20.png", 9), ("sq448.png", 9), ("s300x100.png", 1), ("photo.jpg", 1)]
    grids = [("wide.png", 9), ("tall.png", 9), ("sq896.png", 4)]
    three = tuple(picture(name, 4) for name in ("tiny20.png", "wide.png", "gray.png"))
    turns = (
        Turn("user", (picture("tiny20.png"), "\nWhat is it?")),
        Turn("assistant", ("A bridge.",)),
        Turn("user", ("Which colour?",)),
    )
    made = [
        Request("How many ships go by?"),
        Request("Hello.", system="Answer in one word."),
        *(Request(f"Picture {name}?", (picture(name, parts),)) for name, parts in single + grids),
        Request("Which is the largest?", three),
        Request.video("Tell me.", [picture(f"frame{index}.jpg", 1) for index in range(3)]),
        Request(turns=turns),
    ]
    assert len(made) == 12
    return [
        replace(request, max_new_tokens=NUM_TOKENS, ignore_eos=True, request_id=f"mixed-{index}")
        for index, request in enumerate(made)
    ]


@pytest.fixture(scope="module")
def plain(requests: list[Request]) -> list[Tokens]:
    """Tokens of plain ``generate()`` with the library's own attention, from embeddings put together by hand."""
    model, prompter = load_tiny(), Prompter.from_checkpoint(TINY, QwenChat())
    model.language_model.config._attn_implementation = "sdpa"
    return [generate(model, prompter.encode(request.conversation())) for request in requests]


@torch.inference_mode()
def generate(model: OvisModel, layout: PromptLayout) -> Tokens:
    tiles = [tile for image in layout.images for tile in image.tiles]
    visual = iter(model.encoder(to_pixels(tiles, model.config)) if tiles else ())
    text, indicators = model.language_model.get_input_embeddings().weight, model.encoder.indicators
    rows = [
        next(visual) if token == TILE_ATOM else text[[token]] if token >= 0 else indicators[[IMAGE_START - token]]
        for token in layout.token_ids
    ]
    embeds = torch.cat(rows)[None]
    output = model.language_model.generate(
        inputs_embeds=embeds,
        attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
        min_new_tokens=NUM_TOKENS,
        max_new_tokens=NUM_TOKENS,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return tuple(output[0].tolist())


def run(config: EngineConfig, requests: Iterable[Request], *, together: bool) -> list[Tokens]:
    with Engine.from_pretrained(TINY, config) as engine:
        if together:
            futures = [engine.submit(request) for request in requests]
            tokens = [future.result(60).token_ids for future in futures]
        else:
            tokens = [engine.submit(request).result(60).token_ids for request in requests]
        stats = engine.stats()
    assert (stats.waiting, stats.running, stats.pool_rows_used, stats.cache_tokens_used) == (0, 0, 0, 0)
    return tokens


def test_one_at_a_time_the_engine_equals_generate(requests: list[Request], plain: list[Tokens]) -> None:
    assert run(SMALL, requests, together=False) == plain


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_batch_tokens": 200, "page_size": 8},
        {"kv_cache_tokens": 2816, "max_batch_tokens": 512},
        {"visual_pool_rows": 10 * 256, "vision_batch_tiles": 1},
        {"max_running_requests": 3, "vision_batch_tiles": 5},
    ],
    ids=["together", "chunked prefill", "page pressure", "pool pressure", "few rows"],
)
def test_batched_the_engine_equals_generate(
    requests: list[Request], plain: list[Tokens], changes: dict[str, int]
) -> None:
    assert run(replace(SMALL, **changes), requests, together=True) == plain


def test_preempted_rows_go_on_where_they_were() -> None:
    """Ten rows outgrow a cache of about three again and again."""
    requests = [
        Request(f"Write about {index}.", max_new_tokens=120, ignore_eos=True, request_id=f"row-{index}")
        for index in range(10)
    ]
    with Engine.from_pretrained(TINY, SMALL) as engine:
        alone = [engine.submit(request).result(60).token_ids for request in requests]
        assert engine.stats().preemptions == 0
    with Engine.from_pretrained(TINY, replace(SMALL, kv_cache_tokens=480, page_size=8)) as engine:
        futures = [engine.submit(request) for request in requests]
        assert [future.result(60).token_ids for future in futures] == alone
        assert engine.stats().preemptions > 3


def test_a_repeated_picture_skips_the_tower_and_shares_its_prefix(requests: list[Request], plain: list[Tokens]) -> None:
    with Engine.from_pretrained(TINY, SMALL) as engine:
        for repeat in range(2):
            again = replace(requests[8], request_id=f"again-{repeat}")
            before = engine.stats()
            assert engine.submit(again).result(60).token_ids == plain[8]
            after = engine.stats()
            assert after.encoded_tiles - before.encoded_tiles == (5 if repeat == 0 else 0)
            # The prompt takes two steps to prefill, or one when its pages are found.
            assert after.steps - before.steps == NUM_TOKENS + (1 if repeat == 0 else 0)


def test_ids_that_start_over_never_meet_old_cache_pages(requests: list[Request], plain: list[Tokens]) -> None:
    """With few ids every other picture makes them start over, while other rows keep running."""
    model, prompter = load_tiny(), Prompter.from_checkpoint(TINY, QwenChat())
    wired: list[Dispatcher] = []
    flushes: list[int] = []

    def row_ended(end: RowEnd) -> None:
        wired[0].row_ended(end)

    def flush() -> None:
        flushes.append(1)
        loop.flush_prefix_cache()

    limits = LoopLimits(num_blocks=1024, page_size=16, max_batch_tokens=1024, max_rows=8)
    loop = DecodeLoop(model.language_model, limits, on_row_end=row_ended, on_exit=lambda _: None)
    pool_rows = 11 * 256
    base = model.language_model.config.vocab_size
    front = VisionFront(
        model,
        pool_rows=pool_rows,
        batch_tiles=4,
        flush_prefix_cache=flush,
        max_token_id=base + 2 * (pool_rows + 5),
    )
    dispatcher = Dispatcher(
        front,
        loop,
        detokenizer=Detokenizer(prompter.tokenizer),
        eos_token_ids=(),
        max_running=8,
        batch_tiles=4,
        on_death=None,
    )
    wired.append(dispatcher)
    dispatcher.start()
    for repeat in range(4):
        jobs = []
        for request in requests:
            named = replace(request, request_id=f"{request.request_id}-{repeat}")
            jobs.append(Job(named, prompter.encode(named.conversation()), front.tokens_per_tile))
            dispatcher.submit(jobs[-1])
        assert [job.future.result(60).token_ids for job in jobs] == plain
    dispatcher.close()
    assert len(flushes) >= 2
