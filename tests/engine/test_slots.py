"""The pool's bookkeeping: content never moves under a pin, and an id never stands for two contents."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ovis_engine.embedding import VisualEmbedding
from ovis_engine.slots import IdsExhausted, PinnedTile, SlotTable

ROWS, SLOTS, BASE = 4, 5, 100
POOL = ROWS * SLOTS + 5


def table(max_id: int = 2**31 - 1, num_slots: int = SLOTS) -> SlotTable:
    return SlotTable(num_slots=num_slots, rows_per_slot=ROWS, base=BASE, num_rows=ROWS * num_slots + 5, max_id=max_id)


def digest(content: int) -> bytes:
    return bytes([content])


class PoolMachine(RuleBasedStateMachine):
    """Any order of acquiring, releasing and rewinding, with few generations so that ids run out."""

    def __init__(self) -> None:
        super().__init__()
        self.table = table(max_id=BASE + 4 * POOL - 1)
        self.held: list[tuple[list[int], list[PinnedTile]]] = []
        self.rows: dict[int, int] = {}  # slot -> content written there
        self.meanings: dict[int, int] = {}  # first id -> content, since the last flush

    @rule(contents=st.lists(st.integers(0, 9), max_size=6))
    def acquire(self, contents: list[int]) -> None:
        digests = [digest(content) for content in contents]
        try:
            pinned = self.table.acquire(digests)
        except IdsExhausted:
            rewindable = self.table.rewindable()
            # The flush: only ids of rows that are still held stay known.
            live = {tile.first_id for _, tiles in self.held for tile in tiles}
            self.meanings = {first: content for first, content in self.meanings.items() if first in live}
            self.table.rewind(rewindable)
            pinned = self.table.acquire(digests)
        if pinned is None:
            kept = {content for held, _ in self.held for content in held}
            assert len(kept | set(contents)) > SLOTS
            return
        for content, tile in zip(contents, pinned, strict=True):
            if tile.fresh:
                self.rows[tile.slot] = content
            assert self.rows[tile.slot] == content
            assert self.meanings.setdefault(tile.first_id, content) == content
            assert (tile.first_id - BASE) % POOL == tile.slot * ROWS
        self.held.append((contents, pinned))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.held:
            _, pinned = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
            self.table.release(pinned)

    @invariant()
    def pinned_content_is_where_it_was_written(self) -> None:
        for contents, pinned in self.held:
            assert [self.rows[tile.slot] for tile in pinned] == contents

    @invariant()
    def no_slot_leaks(self) -> None:
        assert self.table.num_pinned == len({tile.slot for _, pinned in self.held for tile in pinned})


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPool = PoolMachine.TestCase


def test_equal_tiles_share_a_slot_and_skip_the_tower() -> None:
    slots = table()
    first = slots.acquire([digest(1), digest(1)])
    second = slots.acquire([digest(1)])
    assert first is not None
    assert second is not None
    assert {tile.slot for tile in first + second} == {first[0].slot}
    assert not second[0].fresh


def test_a_full_pool_pins_all_or_nothing() -> None:
    slots = table()
    held = slots.acquire([digest(content) for content in range(4)])
    assert held is not None
    assert slots.acquire([digest(7), digest(8)]) is None
    assert slots.num_pinned == 4
    slots.release(held[:1])
    assert slots.acquire([digest(7), digest(8)]) is not None


def test_the_least_recently_used_content_goes_first() -> None:
    slots = table(num_slots=2)
    for content in (1, 2, 1):
        slots.release(slots.acquire([digest(content)]) or [])
    slots.release(slots.acquire([digest(3)]) or [])
    kept = slots.acquire([digest(1)])
    assert kept is not None
    assert not kept[0].fresh


def test_a_pool_without_a_single_id_is_refused() -> None:
    with pytest.raises(ValueError, match="no id"):
        table(max_id=BASE + 3)


def test_ids_beyond_the_vocabulary_read_the_pool() -> None:
    text = torch.nn.Embedding(10, 3)
    embedding = VisualEmbedding(text, num_slots=2, rows_per_slot=2, indicators=torch.full((5, 3), 9.0))
    embedding.write(1, torch.tensor([[1.0, 1, 1], [2, 2, 2]]))
    ids = torch.tensor([[4, 12, 13, embedding.indicator_id(0), embedding.indicator_id(4), 12 + 9]], dtype=torch.int32)
    found = embedding(ids)[0]
    assert torch.equal(found[0], text.weight[4])
    assert found[1:, 0].tolist() == [1, 2, 9, 9, 1]
