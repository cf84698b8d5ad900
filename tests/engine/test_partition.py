"""The finest cut that fits, without tiling anything."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovis_engine import Engine, LengthError, Partition, Request, RequestError, Room, largest_partition
from ovis_engine.tiling import choose_grid, num_tiles, num_visual_tokens
from tests.engine.conftest import SMALL, TINY, picture

SIDE, TOKENS = 448, 256


@given(
    sizes=st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), min_size=1, max_size=3),
    room=st.builds(Room, st.integers(0, 9000), st.integers(0, 40)),
    most=st.integers(1, 12),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_largest_partition_fits_and_the_next_does_not(sizes: list[tuple[int, int]], room: Room, most: int) -> None:
    def fits(partition: int) -> bool:
        grids = [choose_grid(*size, side=SIDE, max_partition=partition) for size in sizes]
        tokens = sum(num_visual_tokens(*grid, TOKENS) for grid in grids)
        return tokens <= room.num_tokens and sum(num_tiles(*grid) for grid in grids) <= room.num_tiles

    found = largest_partition(sizes, side=SIDE, tokens_per_tile=TOKENS, room=room, max_partition=most)
    assert found == max((partition for partition in range(1, most + 1) if fits(partition)), default=None)


def test_pictures_of_no_size_are_refused() -> None:
    with pytest.raises(RequestError):
        largest_partition([(0, 5)], side=SIDE, tokens_per_tile=TOKENS, room=Room(9999, 99), max_partition=9)


def test_the_engine_names_a_partition_that_it_then_accepts() -> None:
    # Given a cache that cannot take the picture as it is cut
    wide = picture("sq896.png", 9)
    request = Request("What?", (wide,), max_new_tokens=20, ignore_eos=True)
    with Engine.from_pretrained(TINY, replace(SMALL, kv_cache_tokens=640, page_size=16)) as engine:
        with pytest.raises(LengthError) as caught:
            engine.submit(request)
        assert caught.value.num_visual_tokens == len(wide.tiles) * TOKENS
        assert caught.value.num_prompt_tokens + caught.value.max_new_tokens > caught.value.limit
        # When the caller asks what would fit and tiles anew
        used = engine.largest_partition(request, 9)
        assert used is not None
        assert used < 9
        again = picture("sq896.png", used)
        # Then it is taken, and the completion says so
        smaller = replace(request, images=(again,), partition=Partition(9, used))
        completion = engine.submit(smaller).result(30)
        assert completion.partition == Partition(9, used)
        assert completion.partition.is_reduced
        # And where nothing fits, nothing is named
        assert engine.largest_partition(replace(request, max_new_tokens=600), 9) is None


def test_a_partition_is_what_the_pool_holds_too() -> None:
    with Engine.from_pretrained(TINY, replace(SMALL, visual_pool_rows=3 * TOKENS)) as engine:
        request = Request("What?", (picture("wide.png"),), max_new_tokens=1)
        used = engine.largest_partition(request, 9)
        assert used is not None
        retiled = picture("wide.png", used)
        assert len(retiled.tiles) <= 3
        assert engine.submit(replace(request, images=(retiled,))).result(30).num_tiles == len(retiled.tiles)
