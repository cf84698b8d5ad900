"""The decoding rows' keys and values once more, side by side, so that no step has to gather them from the pages.

A row's keys are copied once when it begins to decode; each step then adds its newest. Rows that leave are replaced by
the last one, so that what is read stays in one piece. Where the copies would take too much memory there are none, and
the rows read the paged cache.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from ovis_engine.decoding_rows import KEY_STEP, MAX_GROWTH, attend_side_by_side, hide_surplus, round_up

#: Most memory for the copies of all layers' keys and values, in bytes.
MAX_BYTES = 256 * 2**20

#: The length of a row whose keys are not copied yet.
_NOT_YET = -1


@dataclass(frozen=True)
class Keys:
    """One layer's keys and values.

    Attributes:
        layer: Its number.
        fresh: (tokens, 2 * key heads, head_dim), those of this step: keys, then values.
        cached: The cache's keys and values, each (any number, key heads, head_dim).
    """

    layer: int
    fresh: Tensor
    cached: tuple[Tensor, Tensor]

    @property
    def halves(self) -> tuple[Tensor, Tensor]:
        """This step's keys and values, each (tokens, key heads, head_dim)."""
        key, value = self.fresh.chunk(2, dim=1)
        return key, value


@dataclass(frozen=True)
class DecodingRow:
    """A row with one token in this step.

    Attributes:
        owner: What it belongs to: equal to nothing but itself, as a request's id may come again.
        place: Where the token is in the batch.
        index: (length,) int64, where the row's keys are in the cache, that of this token at the end.
    """

    owner: Hashable
    place: int
    index: Tensor


@dataclass(frozen=True)
class KeptRows:
    """One step of the rows, in the order in which their keys are kept.

    Attributes:
        keeper: Holds the keys.
        places: (count,) int64, where their tokens are in the batch.
        ends: (count * 2 * key heads,) int64, where the newest keys and values of each go, counted over a whole layer.
        hidden: As `Rows.hidden`.
        begun: Number and row of those whose keys are to be copied first.
    """

    keeper: KeyKeeper
    places: Tensor
    ends: Tensor
    hidden: Tensor
    begun: Sequence[tuple[int, DecodingRow]]

    def attend(self, query: Tensor, keys: Keys, scale: float, output: Tensor) -> None:
        """Attention of the rows' queries among all (tokens, heads, head_dim), into (tokens, heads * head_dim)."""
        count, kept = len(self.places), self.keeper.layer(keys)
        newest = keys.fresh[self.places].flatten(0, 1)
        kept.view(-1, kept.shape[-1]).index_copy_(0, self.ends, newest)
        for number, row in self.begun:
            length = len(row.index)
            for states, cached in zip(kept, keys.cached, strict=True):
                states[number, :, :length] = cached.index_select(0, row.index).transpose(0, 1)
            # What a former row left there may be no number, and would not vanish when weighed with zero.
            kept[:, number, :, length:] = 0
        key, value = kept[:, :count].flatten(1, 2)
        output[self.places] = attend_side_by_side(query[self.places], key, value, self.hidden, scale)


@dataclass
class KeyKeeper:
    """Holds the copies of one decode loop, on its thread only.

    Attributes:
        dtype: The model's.
        key_heads: Of each layer.
        head_dim: Of each key.
        num_layers: Of the model.
        max_rows: Most rows of a step.
        max_bytes: Most memory for the copies.
    """

    dtype: torch.dtype
    key_heads: int
    head_dim: int
    num_layers: int
    max_rows: int
    max_bytes: int
    _lengths: dict[Hashable, int] = field(default_factory=dict)  # in the order of the rows' numbers
    _layers: dict[int, Tensor] = field(default_factory=dict)  # each (2, rows, key heads, length, head_dim)
    _room: tuple[int, int] = (0, 0)  # rows and length

    @classmethod
    def for_cache(cls, cache: Any, max_rows: int, max_bytes: int) -> Self:
        """A keeper beside the library's paged cache."""
        allocator = next(iter(cache.cache_allocators.values()))
        return cls(
            dtype=cache.dtype,
            key_heads=allocator.num_key_value_heads,
            head_dim=allocator.head_dim,
            num_layers=len(allocator.layer_indices),
            max_rows=max_rows,
            max_bytes=max_bytes,
        )

    def plan(self, rows: Sequence[DecodingRow]) -> KeptRows | None:
        """Makes room for a step's rows, once for all layers; None where their keys are not kept."""
        lengths = {row.owner: len(row.index) for row in rows}
        longest = max(lengths.values(), default=0)
        uneven = longest * len(rows) > MAX_GROWTH * sum(lengths.values()) + KEY_STEP
        if not rows or uneven or not self._make_room(lengths, longest):
            self._forget_all()
            return None
        by_owner = {row.owner: row for row in rows}
        begun = [
            (number, by_owner[owner])
            for number, (owner, length) in enumerate(self._lengths.items())
            if length != lengths[owner] - 1
        ]
        ordered = [by_owner[owner] for owner in self._lengths]
        self._lengths = {row.owner: len(row.index) for row in ordered}
        counted = torch.tensor(list(self._lengths.values()))
        return KeptRows(
            keeper=self,
            places=torch.tensor([row.place for row in ordered]),
            ends=self._ends(counted),
            hidden=hide_surplus(torch.arange(self._room[1]) >= counted[:, None], self.dtype),
            begun=begun,
        )

    def layer(self, keys: Keys) -> Tensor:
        """One layer's copies (2, rows, key heads, length, head_dim)."""
        if keys.layer not in self._layers:
            self._layers[keys.layer] = self._empty()
        return self._layers[keys.layer]

    def _ends(self, lengths: Tensor) -> Tensor:
        """Where the last keys and values of rows of these lengths are: (rows * 2 * key heads,), over a whole layer."""
        num_rows, length = self._room
        heads = torch.arange(2 * num_rows * self.key_heads).view(2, num_rows, -1)[:, : len(lengths)]
        return (heads.transpose(0, 1) * length + (lengths - 1)[:, None, None]).flatten()

    def _empty(self) -> Tensor:
        # Of rows that are not there nothing is touched, so that they take no memory.
        num_rows, length = self._room
        return torch.empty(2, num_rows, self.key_heads, length, self.head_dim, dtype=self.dtype)

    def _make_room(self, lengths: dict[Hashable, int], longest: int) -> bool:
        """Lets go of rows that are gone and takes in new ones; False if that would take too much memory."""
        self._drop({owner for owner in self._lengths if owner not in lengths})
        for owner in lengths:
            self._lengths.setdefault(owner, _NOT_YET)
        num_rows, length = self._room
        wanted = round_up(longest)
        # Not smaller for a little: whatever is kept is copied.
        if len(lengths) <= num_rows and wanted <= length < wanted + 2 * KEY_STEP:
            return True
        row_bytes = 2 * self.num_layers * self.key_heads * wanted * self.head_dim * self.dtype.itemsize
        self._room = (min(self.max_rows, self.max_bytes // row_bytes), wanted)
        if len(lengths) > self._room[0]:
            return False
        copied = sum(kept != _NOT_YET for kept in self._lengths.values())  # new rows are at the end
        shared = min(length, wanted)
        for layer, states in self._layers.items():
            moved = self._empty()
            moved[:, :copied, :, :shared] = states[:, :copied, :, :shared]
            moved[:, :copied, :, shared:] = 0
            self._layers[layer] = moved
        return True

    def _drop(self, gone: set[Hashable]) -> None:
        """Puts the last row in the place of each that is gone."""
        owners = list(self._lengths)
        for owner in gone:
            number, last = owners.index(owner), len(owners) - 1
            for states in self._layers.values():
                states[:, number] = states[:, last]
            owners[number] = owners[last]
            owners.pop()
        self._lengths = {owner: self._lengths[owner] for owner in owners}

    def _forget_all(self) -> None:
        self._lengths, self._layers, self._room = {}, {}, (0, 0)
