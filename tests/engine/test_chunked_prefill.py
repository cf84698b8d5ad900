"""Long prompts beside rows that decode."""

from __future__ import annotations

from ovis_engine.engine import Engine
from ovis_engine.request import EngineConfig, Request
from tests.engine.conftest import TINY

LONG = Request(prompt="a long story " * 60, max_new_tokens=4, ignore_eos=True)
SHORT = [Request(prompt=f"tell {number}", max_new_tokens=60, ignore_eos=True) for number in range(3)]


def config(chunk_tokens: int) -> EngineConfig:
    return EngineConfig(
        dtype="float32", kv_cache_tokens=8192, visual_pool_rows=256, long_prompt_tokens=64, chunk_tokens=chunk_tokens
    )


def tokens_with(chunk_tokens: int) -> list[tuple[int, ...]]:
    """Tokens of the short requests and, last, of the long one that came while they decoded."""
    with Engine.from_pretrained(TINY, config(chunk_tokens)) as engine:
        futures = [engine.submit(request) for request in SHORT]
        while engine.stats().output_tokens < len(SHORT):
            pass
        futures.append(engine.submit(LONG))
        return [future.result().token_ids for future in futures]


def test_a_long_prompt_in_small_chunks_gives_the_tokens_that_it_gives_whole() -> None:
    assert tokens_with(16) == tokens_with(2048)


def test_without_company_a_long_prompt_goes_in_whole() -> None:
    with Engine.from_pretrained(TINY, config(16)) as engine:
        engine.submit(LONG).result()
        assert engine.stats().steps == LONG.max_new_tokens


def test_beside_decoding_rows_a_long_prompt_takes_its_chunks() -> None:
    with Engine.from_pretrained(TINY, config(16)) as engine:
        num_tokens = engine.count_prompt_tokens(LONG)
        beside = engine.submit(Request(prompt="tell", max_new_tokens=2000, ignore_eos=True))
        while engine.stats().output_tokens < 1:
            pass
        before = engine.stats().steps
        engine.submit(LONG).result()
        assert engine.stats().steps - before >= num_tokens // 16
        assert not beside.done()
