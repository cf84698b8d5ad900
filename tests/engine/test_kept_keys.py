"""Keys kept side by side, against the same rows read from the cache."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovis_engine import Engine, Request, kept_keys
from ovis_engine.decoding_rows import group_rows
from ovis_engine.kept_keys import DecodingRow, KeptRows, KeyKeeper, Keys
from tests.engine.conftest import SMALL, TINY, picture

HEADS, KEY_HEADS, HEAD_DIM, NUM_LAYERS, CACHE_TOKENS = 4, 2, 8, 2, 4000
#: More than the steps below ever have.
MAX_ROWS = 40

#: What happens before each step: rows that begin, with their lengths, and how many of the oldest leave.
steps = st.lists(st.tuples(st.lists(st.integers(1, 90), max_size=4), st.integers(0, 3)), min_size=1, max_size=8)


class Cache:
    """A paged cache of our own: each token of a row lies anywhere; what is free is no number."""

    def __init__(self) -> None:
        self.random = torch.Generator().manual_seed(11)
        self.free = torch.randperm(CACHE_TOKENS, generator=self.random).tolist()
        self.layers = [torch.full((2, CACHE_TOKENS, KEY_HEADS, HEAD_DIM), torch.nan) for _ in range(NUM_LAYERS)]
        self.rows: dict[str, list[int]] = {}

    def write(self, name: str, count: int) -> None:
        for _ in range(count):
            place = self.free.pop()
            self.rows.setdefault(name, []).append(place)
            for states in self.layers:
                states[:, place] = torch.randn(2, KEY_HEADS, HEAD_DIM, generator=self.random)

    def leave(self, name: str) -> None:
        for place in self.rows.pop(name):
            for states in self.layers:
                states[:, place] = torch.nan
            self.free.insert(0, place)


def check(cache: Cache, kept: KeptRows, rows: list[DecodingRow]) -> None:
    """Every layer gives what the rows give that are read from the cache."""
    query = torch.randn(len(rows), HEADS, HEAD_DIM, generator=cache.random)
    newest = [int(row.index[-1]) for row in rows]
    for layer, states in enumerate(cache.layers):
        found, expected = torch.empty(2, len(rows), HEADS * HEAD_DIM)
        keys = Keys(layer, torch.cat((states[0, newest], states[1, newest]), 1), (states[0], states[1]))
        kept.attend(query, keys, 0.3, found)
        ends = torch.tensor([0, *(len(row.index) for row in rows)]).cumsum(0).tolist()
        spans = [slice(start, stop) for start, stop in pairwise(ends)]
        for group in group_rows(range(len(rows)), spans, torch.cat([row.index for row in rows]), torch.float32):
            expected[group.places] = group.attend(query[group.places], states[0], states[1], 0.3)
        torch.testing.assert_close(found, expected)


@given(steps)
@settings(max_examples=15, deadline=None)
def test_rows_that_come_and_go_attend_to_their_own_keys(plan: list[tuple[list[int], int]]) -> None:
    keeper = KeyKeeper(torch.float32, KEY_HEADS, HEAD_DIM, NUM_LAYERS, MAX_ROWS, kept_keys.MAX_BYTES)
    cache, began = Cache(), 0
    for lengths, num_leaving in plan:
        for name in list(cache.rows)[:num_leaving]:
            cache.leave(name)
        for length in lengths:
            cache.write(f"row-{began}", length)
            began += 1
        for name in cache.rows:
            cache.write(name, 1)
        rows = [DecodingRow(name, place, torch.tensor(own)) for place, (name, own) in enumerate(cache.rows.items())]
        kept = keeper.plan(rows)
        if kept is not None:
            check(cache, kept, rows)


def test_rows_that_are_too_uneven_or_too_large_are_not_kept() -> None:
    def rows(*lengths: int) -> list[DecodingRow]:
        return [DecodingRow(str(place), place, torch.arange(length)) for place, length in enumerate(lengths)]

    keeper = KeyKeeper(torch.float32, KEY_HEADS, HEAD_DIM, NUM_LAYERS, MAX_ROWS, kept_keys.MAX_BYTES)
    assert keeper.plan(rows(100, 90)) is not None
    assert keeper.plan(rows(5, 6, 7, 3000)) is None
    assert keeper.plan([]) is None
    fitting = kept_keys.MAX_BYTES // (2 * NUM_LAYERS * KEY_HEADS * HEAD_DIM * 4)
    assert keeper.plan(rows(fitting)) is not None
    assert keeper.plan(rows(fitting + 1)) is None


def test_a_request_id_that_comes_again_meets_no_keys_of_its_first_row() -> None:
    first = Request("What?", (picture("sq448.png"),), request_id="same", ignore_eos=True)
    second = Request("Which of them?", (picture("frame0.jpg"),), request_id="same", ignore_eos=True, max_new_tokens=10)
    with Engine.from_pretrained(TINY, SMALL) as engine:
        expected = engine.submit(second).result(60).token_ids
        # So many tokens that the first row's keys end where the second row's will begin to grow.
        surplus = engine.count_prompt_tokens(second) - engine.count_prompt_tokens(first)
    with Engine.from_pretrained(TINY, SMALL) as engine:
        engine.submit(replace(first, max_new_tokens=surplus + 1)).result(60)
        assert engine.submit(second).result(60).token_ids == expected
