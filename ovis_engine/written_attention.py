"""Attention as plain matrix products: where SDPA's CPU kernel falls short of them.

In bfloat16 on a CPU with AVX-512 but without AMX, SDPA takes twice as long for a tile or a prompt (figures in
``docs/performance.md``). Scores are made in portions that stay in the core's cache; they are rounded to bfloat16 before
the softmax, as in the reference's eager attention.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

#: Scores in memory together, over all heads: 1 MiB in bfloat16.
PORTION = 2**19
#: Fewest queries for which the products are worth their setup; for fewer, SDPA is as fast.
MIN_QUERIES = 32


def products_pay(query: Tensor) -> bool:
    """Whether plain products are faster than SDPA for queries of this kind and number."""
    on_cpu = query.device.type == "cpu" and query.dtype == torch.bfloat16
    # With AMX, SDPA's kernel uses it.
    return on_cpu and query.shape[2] >= MIN_QUERIES and not torch.cpu._is_amx_tile_supported()


def attend_fully(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of every token over all, by whichever way is faster.

    Args:
        query: (n, heads, tokens, head_dim).
        key: As query.
        value: As query.

    Returns:
        As query.
    """
    if not products_pay(query):
        return scaled_dot_product_attention(query, key, value)
    scaled = query * query.shape[-1] ** -0.5
    if query.requires_grad:
        # Writing into slices of one output would cost the backward pass a copy of it per head.
        heads = zip(*(part.flatten(0, 1).unbind() for part in (scaled, key, value)), strict=True)
        attended = [torch.mm(torch.mm(q, k.t()).softmax(-1), v) for q, k, v in heads]
        return torch.stack(attended).view(query.shape)
    output = torch.empty_like(query)
    for picture in range(query.shape[0]):
        for head in range(query.shape[1]):
            weights = torch.mm(scaled[picture, head], key[picture, head].t()).softmax(-1)
            output[picture, head] = torch.mm(weights, value[picture, head])
    return output


def attend_causally(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    """Attention of one sequence's newest queries over its keys up to themselves, heads in groups.

    Args:
        query: (1, heads, queries, head_dim), for which `products_pay`.
        key: (1, key heads, keys, head_dim) with at least as many keys as queries.
        value: As key.
        scale: Factor on the scores; None means one over the square root of head_dim.

    Returns:
        As query.
    """
    _, heads, num_queries, head_dim = query.shape
    key_heads, offset = key.shape[1], key.shape[2] - num_queries
    group = heads // key_heads
    block = max(MIN_QUERIES, PORTION // (heads * key.shape[2]))
    scaled = (query[0] * (head_dim**-0.5 if scale is None else scale)).view(key_heads, group, num_queries, head_dim)
    turned = key[0].transpose(1, 2)  # (key heads, head_dim, keys)
    output = torch.empty_like(query)
    for start in range(0, num_queries, block):
        stop = min(start + block, num_queries)
        seen = offset + stop
        hidden = torch.full((stop - start, seen), -torch.inf, dtype=query.dtype).triu_(offset + start + 1)
        # The heads of a group become further queries of their key head.
        folded = scaled[:, :, start:stop].reshape(key_heads, -1, head_dim)
        scores = torch.bmm(folded, turned[:, :, :seen]).view(key_heads, group, stop - start, seen).add_(hidden)
        weights = scores.softmax(-1).view(key_heads, -1, seen)
        output[0, :, start:stop] = torch.bmm(weights, value[0, :, :seen]).view(heads, stop - start, head_dim)
    return output
