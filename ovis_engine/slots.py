"""Which tile's visual tokens live in which slot of the visual-embedding pool, and under which token ids.

A slot holds the visual tokens of one tile. Its ids start at ``base + generation * num_rows + slot * rows_per_slot``:
the generation counts up whenever the slot gets new content, so an id never stands for two contents, and a row is found
as ``(id - base) % num_rows``. Equal tiles share a slot. Pinned slots keep their content; unpinned ones keep it until
the slot is needed, least recently used first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: Largest token id that the library's int32 batches can hold.
MAX_TOKEN_ID = 2**31 - 1


class IdsExhausted(Exception):
    """No slot has an unused generation left: flush the library's prefix cache, then call `SlotTable.rewind`."""


@dataclass(frozen=True)
class PinnedTile:
    """One tile of a request, pinned to a slot.

    Attributes:
        slot: Index of the slot.
        first_id: Token id of the tile's first visual token; the others follow.
        fresh: Whether the slot's rows still have to be written.
    """

    slot: int
    first_id: int
    fresh: bool


class SlotTable:
    """Hands out slots to tiles. Any thread may release; one thread at a time may acquire and rewind."""

    def __init__(
        self, *, num_slots: int, rows_per_slot: int, base: int, num_rows: int, max_id: int = MAX_TOKEN_ID
    ) -> None:
        """Starts with all slots empty.

        Args:
            num_slots: Tiles that fit, at least 1.
            rows_per_slot: Visual tokens of a tile.
            base: First token id beyond the vocabulary.
            num_rows: Rows of the pool, at least num_slots * rows_per_slot; more are never handed out.
            max_id: Largest id that may be handed out.
        """
        self._rows_per_slot, self._base, self._num_rows = rows_per_slot, base, num_rows
        self._num_generations = (max_id + 1 - base) // num_rows
        if num_slots < 1 or self._num_generations < 1:
            raise ValueError(f"no id below {max_id} for {num_slots} slots of {rows_per_slot} rows")
        self.num_slots = num_slots
        self._lock = threading.Lock()
        self._empty = list(range(num_slots - 1, -1, -1))
        self._next_generation = [0] * num_slots
        self._first_ids = [0] * num_slots
        self._pins = [0] * num_slots
        self._contents: dict[int, bytes] = {}
        self._slots: dict[bytes, int] = {}
        self._unpinned: OrderedDict[int, None] = OrderedDict()

    @property
    def num_pinned(self) -> int:
        """Slots that some request holds."""
        with self._lock:
            return len(self._contents) - len(self._unpinned)

    def acquire(self, digests: Sequence[bytes]) -> list[PinnedTile] | None:
        """Pins a slot for each tile, all or none; a digest given twice gets one slot, pinned twice.

        Returns:
            One entry per digest, or None when too many slots are pinned by others.

        Raises:
            IdsExhausted: If a needed slot has used up its ids; nothing was pinned.
        """
        with self._lock:
            held = {digest: self._slots[digest] for digest in digests if digest in self._slots}
            missing = [digest for digest in dict.fromkeys(digests) if digest not in held]
            free = self._choose(len(missing), set(held.values()))
            if free is None:
                return None
            for digest, slot in zip(missing, free, strict=True):
                self._fill(slot, digest)
            return [self._pin(digest, fresh=digest in missing) for digest in digests]

    def release(self, tiles: Iterable[PinnedTile]) -> None:
        """Unpins what `acquire` returned; its content stays until the slot is needed."""
        with self._lock:
            for tile in tiles:
                self._pins[tile.slot] -= 1
                assert self._pins[tile.slot] >= 0
                if self._pins[tile.slot] == 0:
                    self._unpinned[tile.slot] = None

    def rewindable(self) -> set[int]:
        """Slots that no request holds now: once the prefix cache is flushed, nothing remembers their old ids."""
        with self._lock:
            return set(self._unpinned) | set(self._empty)

    def rewind(self, slots: set[int]) -> None:
        """Lets slots that were `rewindable` before the flush count their generations from 0 again."""
        with self._lock:
            for slot in slots:
                self._drop(slot)
                self._next_generation[slot] = 0
            self._empty = sorted(slots | set(self._empty), reverse=True)

    def _choose(self, count: int, kept: set[int]) -> list[int] | None:
        """Picks empty slots first, then the least recently used; None if there are too few."""
        evictable = [slot for slot in self._unpinned if slot not in kept]
        if count > len(self._empty) + len(evictable):
            return None
        candidates = [*reversed(self._empty), *evictable]
        usable = [slot for slot in candidates if self._next_generation[slot] < self._num_generations]
        if count > len(usable):
            raise IdsExhausted
        return usable[:count]

    def _fill(self, slot: int, digest: bytes) -> None:
        if slot in self._contents:
            self._drop(slot)
        else:
            self._empty.remove(slot)
        generation = self._next_generation[slot]
        self._next_generation[slot] = generation + 1
        self._first_ids[slot] = self._base + generation * self._num_rows + slot * self._rows_per_slot
        self._contents[slot] = digest
        self._slots[digest] = slot

    def _pin(self, digest: bytes, *, fresh: bool) -> PinnedTile:
        slot = self._slots[digest]
        self._pins[slot] += 1
        self._unpinned.pop(slot, None)
        return PinnedTile(slot, self._first_ids[slot], fresh)

    def _drop(self, slot: int) -> None:
        digest = self._contents.pop(slot, None)
        if digest is not None:
            del self._slots[digest]
        self._unpinned.pop(slot, None)
