"""Ovis1.6: sliding windows, softcaps and embedding scale in the engine give the tokens of plain ``generate()``."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from ovis_engine.batching import DecodeLoop, LoopLimits
from ovis_engine.chat import CHAT_FORMATS
from ovis_engine.checkpoint import OvisModel, load_model
from ovis_engine.embedding import VisualEmbedding
from ovis_engine.engine import Engine
from ovis_engine.prompt import IMAGE_START, TILE_ATOM, Prompter, PromptLayout, Turn
from ovis_engine.request import EngineConfig, Request
from ovis_engine.vision import to_pixels
from tests.engine.conftest import PARITY, SMALL, picture

GEMMA, LLAMA = PARITY / "models" / "ovis1.6-gemma2-tiny", PARITY / "models" / "ovis1.6-llama3.2-tiny"
NUM_TOKENS = 20
Tokens = tuple[int, ...]

both = pytest.mark.parametrize("directory", [GEMMA, LLAMA], ids=["gemma2", "llama3.2"])


@cache
def requests() -> tuple[Request, ...]:
    """Short and long ones: below the window of 64, across it while decoding, and far beyond it."""
    grid, tile = picture("wide.png", 4, side=384), picture("tiny20.png", side=384)
    turns = (Turn("user", (tile, "\nWhat is it?")), Turn("assistant", ("A bridge.",)), Turn("user", ("Which colour?",)))
    made = [
        Request("Hi."),
        Request("How many ships go by the old bridge over the river, and where do they go from there?"),
        Request("Count them. " * 30),
        Request("What is it?", (tile,)),
        Request("Describe it.", (grid,)),
        Request("Which is the largest?", (tile, grid, tile)),
        Request(turns=turns),
    ]
    return tuple(
        replace(request, max_new_tokens=NUM_TOKENS, ignore_eos=True, request_id=f"row-{index}")
        for index, request in enumerate(made)
    )


def load(directory: Path) -> tuple[OvisModel, Prompter]:
    model = load_model(directory, device=torch.device("cpu"), dtype=torch.float32)
    return model, Prompter.from_checkpoint(directory, CHAT_FORMATS[model.config.language_model])


@cache
def plain(directory: Path) -> list[Tokens]:
    """By the library's own eager attention and cache, from embeddings put together by hand."""
    model, prompter = load(directory)
    model.language_model.config._attn_implementation = "eager"
    return [generate(model, prompter.encode(request.conversation())) for request in requests()]


@torch.inference_mode()
def generate(model: OvisModel, layout: PromptLayout) -> Tokens:
    tiles = [tile for image in layout.images for tile in image.tiles]
    visual = iter(model.encoder(to_pixels(tiles, model.config)) if tiles else ())
    text, indicators = model.language_model.get_input_embeddings().weight, model.encoder.indicators
    rows = [
        next(visual) if token == TILE_ATOM else text[[token]] if token >= 0 else indicators[[IMAGE_START - token]]
        for token in layout.token_ids
    ]
    scale = model.config.hidden_size**0.5 if model.config.language_model == "gemma2" else 1.0
    embeds = torch.cat(rows)[None] * scale
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


def run(directory: Path, config: EngineConfig) -> tuple[list[Tokens], int]:
    with Engine.from_pretrained(directory, config) as engine:
        futures = [engine.submit(request) for request in requests()]
        tokens = [future.result(120).token_ids for future in futures]
        stats = engine.stats()
    assert (stats.waiting, stats.running, stats.pool_rows_used, stats.cache_tokens_used) == (0, 0, 0, 0)
    return tokens, stats.preemptions


@both
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_batch_tokens": 100, "page_size": 8},
        {"max_batch_tokens": 64, "page_size": 16, "max_running_requests": 2},
        {"visual_pool_rows": 8 * 196, "vision_batch_tiles": 1},
    ],
    ids=["together", "chunks across the window", "few rows", "pool pressure"],
)
def test_batched_the_engine_equals_generate(directory: Path, changes: dict[str, int]) -> None:
    assert run(directory, replace(SMALL, **changes))[0] == plain(directory)


@both
def test_preempted_rows_go_on_where_they_were(directory: Path) -> None:
    texts = [
        Request(f"Write about {index}.", max_new_tokens=90, ignore_eos=True, request_id=f"text-{index}")
        for index in range(8)
    ]
    with Engine.from_pretrained(directory, SMALL) as engine:
        alone = [engine.submit(request).result(60).token_ids for request in texts]
    with Engine.from_pretrained(directory, replace(SMALL, kv_cache_tokens=320, page_size=8)) as engine:
        futures = [engine.submit(request) for request in texts]
        assert [future.result(60).token_ids for future in futures] == alone
        assert engine.stats().preemptions > 0
        assert engine.stats().cache_tokens_used == 0


def test_a_request_as_long_as_the_cache_runs_after_many_short_ones() -> None:
    """Short rows fill the cache with pages of the sliding layers; a long one needs that room for the others."""
    with Engine.from_pretrained(GEMMA, replace(SMALL, kv_cache_tokens=256, page_size=16)) as engine:
        short = [engine.submit(Request(f"x{index}", max_new_tokens=46, ignore_eos=True)) for index in range(12)]
        assert [future.result(60).num_output_tokens for future in short] == [46] * 12
        request = Request("Go on.", max_new_tokens=1, ignore_eos=True)
        longest = engine.max_context_tokens - engine.count_prompt_tokens(request)
        done = engine.submit(replace(request, max_new_tokens=longest)).result(60)
        assert done.num_prompt_tokens + done.num_output_tokens == engine.max_context_tokens
        assert engine.max_context_tokens >= 256


def test_a_hybrid_cache_has_a_group_per_kind_of_layer_and_shares_no_prefixes() -> None:
    model, _ = load(GEMMA)
    limits = LoopLimits(num_blocks=16, page_size=16, max_batch_tokens=64, max_rows=4)
    loop = DecodeLoop(model.language_model, limits, on_row_end=print, on_exit=print)
    assert set(loop._cache.cache_allocators) == {"full_attention", "sliding_attention"}
    assert not loop._cache.use_prefix_sharing


@pytest.mark.parametrize(("dtype", "factor"), [(torch.float32, 8.0), (torch.bfloat16, 8.0)], ids=["fp32", "bf16"])
def test_visual_and_indicator_embeddings_are_scaled_like_text_once(dtype: torch.dtype, factor: float) -> None:
    model = load_model(GEMMA, device=torch.device("cpu"), dtype=dtype)
    text = model.language_model.get_input_embeddings()
    embedding = VisualEmbedding(
        text, num_slots=1, rows_per_slot=2, indicators=model.encoder.indicators, scale=model.embed_scale
    )
    rows = torch.randn(2, model.config.hidden_size).to(dtype)
    embedding.write(0, rows)
    ids = torch.tensor([5, embedding.base, embedding.base + 1, embedding.indicator_id(4)])
    wanted = torch.cat([text.weight[[5]], rows, model.encoder.indicators[[4]]]) * factor
    assert torch.equal(embedding(ids), wanted)


def test_the_real_scale_is_rounded_to_bfloat16_first() -> None:
    text = torch.nn.Embedding(4, 3584, dtype=torch.bfloat16)
    indicators = torch.ones(5, 3584, dtype=torch.bfloat16)
    embedding = VisualEmbedding(text, num_slots=1, rows_per_slot=1, indicators=indicators, scale=3584**0.5)
    assert embedding(torch.tensor([embedding.indicator_id(0)]))[0, 0].item() == 59.75
