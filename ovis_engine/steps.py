"""A step of the decode loop on a CPU: which rows decode, which prompts come in and where their keys are.

It is worked out once for all layers. Prompts that come in whole attend to the keys just made; only decoding rows and
later chunks read the cache. Like `ovis_engine.batching`, touches the library's internals.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, starmap
from typing import Any, Self

import torch
from torch import Tensor
from transformers.generation.continuous_batching.cache_allocators import FullAttentionCacheAllocator

from ovis_engine.decoding_rows import Rows, group_rows
from ovis_engine.kept_keys import DecodingRow, KeptRows, KeyKeeper, Keys
from ovis_engine.written_attention import attend_causally

#: Argument by which a step travels through the library's model to the attention layers.
STEP = "step"


@dataclass(frozen=True)
class Chunk:
    """Some tokens of one sequence, more than one.

    Attributes:
        queries: Their place in the batch.
        index: Where the keys of the whole sequence so far are in the cache; None if these tokens are all there is.
    """

    queries: slice
    index: Tensor | None


@dataclass(frozen=True)
class Step:
    """What one step computes.

    Attributes:
        rows: Sequences with one token.
        chunks: The others.
        kept: The same rows where their keys are kept side by side; None where they are read from the cache.
        ends: The chunks' last tokens as rows, for the last layer: logits are made from nothing else.
        last_tokens: (sequences,) int64, where the sequences' last tokens are in the batch.
        in_cache: Whether rows and ends read the cache rather than this step's keys.
    """

    rows: tuple[Rows, ...]
    kept: KeptRows | None
    chunks: tuple[Chunk, ...]
    ends: tuple[Rows, ...]
    last_tokens: Tensor
    in_cache: bool

    @classmethod
    def of(cls, batch: dict[str, Any], owners: Sequence[Hashable], keeper: KeyKeeper) -> Self | None:
        """Reads the library's description of a packed batch.

        Args:
            batch: What the library gives the model.
            owners: What the sequences belong to, as `DecodingRow.owner`.
            keeper: Of this loop; told which rows decode.

        Returns:
            None where layers differ in what they keep, or where an attention kernel reads the cache itself.
        """
        allocators = list(batch["cache"].cache_allocators.values())
        whole = len(allocators) == 1 and type(allocators[0]) is FullAttentionCacheAllocator
        if not whole or batch["block_table"] is not None:
            return None
        queries = list(_spans(batch["cu_seq_lens_q"].tolist()))
        (key_ends,) = batch["cu_seq_lens_k"].values()
        keys = list(_spans(key_ends.tolist()))
        (index,) = batch["read_index"]
        in_cache = index.numel() > 0
        index = index.long() if in_cache else torch.arange(queries[-1].stop)
        numbers = range(len(queries))
        rows = [number for number in numbers if queries[number].stop - queries[number].start == 1]
        rest = [number for number in numbers if queries[number].stop - queries[number].start > 1]
        kept = None
        if in_cache:
            kept = keeper.plan(
                [DecodingRow(owners[number], queries[number].start, index[keys[number]]) for number in rows]
            )

        def group(wanted: Sequence[int]) -> tuple[Rows, ...]:
            places = [queries[number].stop - 1 for number in wanted]
            return tuple(group_rows(places, [keys[number] for number in wanted], index, keeper.dtype))

        return cls(
            rows=() if kept is not None else group(rows),
            kept=kept,
            chunks=tuple(_chunk(queries[number], keys[number], index) for number in rest),
            ends=group(rest),
            last_tokens=torch.tensor([span.stop - 1 for span in queries]),
            in_cache=in_cache,
        )

    def write(self, batch: dict[str, Any], layer: int, fresh: Tensor) -> Keys:
        """Puts a layer's new keys and values (tokens, 2 * key heads, head_dim) into the cache."""
        allocator = batch["cache"].layer_to_allocator[layer]
        (places,) = batch["write_index"]
        keys = Keys(layer, fresh, allocator._kv_token_views[layer])
        # With nothing to read, the library only writes.
        allocator.update(*keys.halves, layer, places[:0], places)
        return keys

    def attend(self, query: Tensor, keys: Keys, scale: float) -> Tensor:
        """Attention of all queries (tokens, heads, head_dim); returns (tokens, heads * head_dim)."""
        output = query.new_empty(query.shape[0], query.shape[1] * query.shape[2])
        self._attend_rows(self.rows, query, keys, scale, output)
        for chunk in self.chunks:
            if chunk.index is None:
                key, value = (states[chunk.queries] for states in keys.halves)
            else:
                key, value = (states.index_select(0, chunk.index) for states in keys.cached)
            output[chunk.queries] = attend_causally(query[chunk.queries], key, value, scale)
        return output

    def attend_last_tokens(self, query: Tensor, keys: Keys, scale: float) -> Tensor:
        """As `attend`, for the sequences' last tokens alone: (sequences, heads * head_dim)."""
        output = query.new_empty(query.shape[0], query.shape[1] * query.shape[2])
        self._attend_rows((*self.rows, *self.ends), query, keys, scale, output)
        return output[self.last_tokens]

    def _attend_rows(self, groups: Sequence[Rows], query: Tensor, keys: Keys, scale: float, output: Tensor) -> None:
        if self.kept is not None:
            self.kept.attend(query, keys, scale, output)
        for rows in groups:
            read = keys.cached if self.in_cache else keys.halves
            output[rows.places] = rows.attend(query[rows.places], *read, scale)


def _chunk(queries: slice, keys: slice, index: Tensor) -> Chunk:
    is_whole = queries.stop - queries.start == keys.stop - keys.start
    return Chunk(queries, None if is_whole else index[keys])


def _spans(ends: Sequence[int]) -> Iterator[slice]:
    """Each sequence's place in the packed batch, from cumulative lengths that start with 0."""
    return starmap(slice, pairwise(ends))
