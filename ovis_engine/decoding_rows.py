"""Attention of all rows that decode, in one call: each has one query and keys of its own length.

The library gathers the keys of a packed batch by an index. Here the decoding rows' part of that index is widened so
that every row gets as many keys as the longest, and the surplus is hidden. Two products then serve all rows; scores are
rounded to the model's dtype before the softmax, as in the reference's eager attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

#: How many times the keys of the rows may grow by making all rows as long as the longest.
MAX_GROWTH = 1.5


@dataclass(frozen=True)
class Rows:
    """The decoding rows at the head of a packed batch.

    Attributes:
        count: How many, at least 2.
        length: Keys of each, its own and surplus ones.
        hidden: (count, length) boolean, True for the surplus.
        shift: Keys by which the rest of the batch has moved.
    """

    count: int
    length: int
    hidden: Tensor
    shift: int

    @classmethod
    def among(cls, batch: dict[str, Any], query: Tensor) -> Self | None:
        """Widens the rows' part of a batch's index, in place.

        Args:
            batch: The library's description of a packed batch, before the cache is updated.
            query: (1, heads, tokens, head_dim).

        Returns:
            The rows, or None where a call for each is as good.
        """
        indices = batch.get("read_index", ())
        if query.device.type != "cpu" or len(indices) != 1 or indices[0].numel() == 0:
            return None
        (ends,) = batch["cu_seq_lens_k"].values()
        # The library puts decoding rows first.
        num_queries = batch["cu_seq_lens_q"].diff()
        count = int((num_queries == 1).cumprod(0).sum())
        starts, lengths = ends[:count], ends.diff()[:count]
        if count < 2:
            return None
        length, total = int(lengths.max()), int(ends[count])
        if count * length > MAX_GROWTH * total:
            return None
        places = torch.arange(length)
        hidden = places >= lengths[:, None]
        # Surplus places repeat the row's first key.
        widened = indices[0][(starts[:, None] + places.masked_fill(hidden, 0)).flatten()]
        batch["read_index"] = [torch.cat((widened, indices[0][total:]))]
        return cls(count, length, hidden, count * length - total)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """Attention of each row's query over its own keys.

        Args:
            query: (1, heads, count, head_dim).
            key: (1, key heads, keys, head_dim), gathered by the widened index.
            value: As key.
            scale: Factor on the scores; None means one over the square root of head_dim.

        Returns:
            As query.
        """
        _, heads, _, head_dim = query.shape
        key_heads = key.shape[1]
        # The gathered layout: all heads of a key side by side, so that nothing is copied here.
        keys, values = (
            states[0, :, : self.count * self.length].transpose(0, 1).reshape(self.count, self.length, -1)
            for states in (key, value)
        )
        own = torch.arange(key_heads)
        # Each query is zero where other heads' keys are: wasted products cost less than taking the heads apart.
        wide = query.new_zeros(self.count, key_heads, heads // key_heads, key_heads, head_dim)
        scaled = query[0] * (head_dim**-0.5 if scale is None else scale)
        wide[:, own, :, own] = scaled.view(key_heads, heads // key_heads, self.count, head_dim).transpose(1, 2)
        scores = torch.bmm(wide.view(self.count, heads, -1), keys.transpose(1, 2))  # (count, heads, length)
        weights = scores.masked_fill_(self.hidden[:, None], -torch.inf).softmax(-1)
        mixed = torch.bmm(weights, values).view_as(wide)[:, own, :, own]  # (key heads, count, group, head_dim)
        return mixed.transpose(1, 2).reshape(1, heads, self.count, head_dim)
