"""Attention of rows that have one query each, and keys of their own number: many rows in one call.

The keys of all rows are read from the paged cache by one index that gives every row as many as the longest of its
group, rounded up; the surplus is hidden. Two products then serve the group. Scores are rounded to the model's dtype
before the softmax, as in the reference's eager attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Rows share a call while the longest has at most this many times the keys of the shortest.
MAX_GROWTH = 1.5
#: Numbers of keys are rounded up to a multiple of this: the matrix kernels are made anew for every new shape, and the
#: softmax is half as fast for numbers that are no multiple of 32.
KEY_STEP = 64


@dataclass(frozen=True)
class Rows:
    """A group of rows.

    Attributes:
        places: (count,) int64, where their queries are among those of the batch.
        index: (count * length,) where their keys are in what is given to `attend`, surplus ones included.
        hidden: (count, 1, length) in the model's dtype: 0, or minus infinity for the surplus.
    """

    places: Tensor
    index: Tensor
    hidden: Tensor

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of each row's query over its own keys.

        Args:
            query: (count, heads, head_dim).
            key: (any number, key heads, head_dim), read by the index.
            value: As key.
            scale: Factor on the scores.

        Returns:
            (count, heads * head_dim).
        """
        count, key_heads = query.shape[0], key.shape[1]
        # (count, key heads, length), so that each head's keys come out side by side.
        index = self.index.view(count, 1, -1) * key_heads + torch.arange(key_heads)[:, None]
        keys, values = (
            states.flatten(0, 1).index_select(0, index.flatten()).view(count * key_heads, -1, states.shape[2])
            for states in (key, value)
        )
        return attend_side_by_side(query, keys, values, self.hidden, scale)


def attend_side_by_side(query: Tensor, keys: Tensor, values: Tensor, hidden: Tensor, scale: float) -> Tensor:
    """Attention of one query per row over the row's keys.

    Args:
        query: (count, heads, head_dim).
        keys: (count * key heads, length, head_dim), contiguous.
        values: As keys.
        hidden: (count, 1, length), added to the scores.
        scale: Factor on the scores.

    Returns:
        (count, heads * head_dim).
    """
    count, heads, head_dim = query.shape
    # The heads of a group are queries of their key head: nothing is taken apart or put together.
    grouped = query.reshape(len(keys), -1, head_dim)
    products = torch.bmm(grouped, keys.transpose(1, 2))  # (count * key heads, group, length)
    scores = products.view(count, heads, -1)
    torch.add(hidden, scores, alpha=scale, out=scores)
    torch.softmax(scores, -1, out=scores)
    return torch.bmm(products, values).view(count, heads * head_dim)


def group_rows(places: Sequence[int], spans: Sequence[slice], index: Tensor, dtype: torch.dtype) -> list[Rows]:
    """Makes groups of rows that are about equally long.

    Args:
        places: Where each row's query is.
        spans: Where each row's keys are in the index, none of them empty.
        index: (any number,) int64, where keys are.
        dtype: The model's.

    Returns:
        Groups that together have every row once.
    """
    order = sorted(range(len(places)), key=lambda row: spans[row].start - spans[row].stop)
    groups: list[list[int]] = []
    limit = 0.0
    for row in order:
        length = spans[row].stop - spans[row].start
        if not groups or length * MAX_GROWTH + KEY_STEP < limit:
            groups.append([])
            limit = length
        groups[-1].append(row)
    return [
        _group([places[row] for row in sorted(group)], [spans[row] for row in sorted(group)], index, dtype)
        for group in groups
    ]


def _group(places: list[int], spans: list[slice], index: Tensor, dtype: torch.dtype) -> Rows:
    starts = torch.tensor([span.start for span in spans])
    lengths = torch.tensor([span.stop - span.start for span in spans])
    steps = torch.arange(round_up(int(lengths.max())))
    surplus = steps >= lengths[:, None]
    # Surplus keys repeat the row's first one: whatever else the cache holds there must not reach this row.
    own = index[(starts[:, None] + steps.masked_fill(surplus, 0)).flatten()]
    return Rows(torch.tensor(places), own, hide_surplus(surplus, dtype))


def round_up(length: int) -> int:
    """The number of keys that rows of this length get."""
    return -(-length // KEY_STEP) * KEY_STEP


def hide_surplus(surplus: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the scores (count, 1, length), from what is True where a key is surplus (count, length)."""
    return torch.zeros(surplus.shape, dtype=dtype).masked_fill_(surplus, -torch.inf).unsqueeze(1)
