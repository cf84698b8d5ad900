"""Attention as plain matrix products: where SDPA's CPU kernel falls short of them.

In bfloat16 on a CPU with AVX-512 but without AMX, SDPA takes twice as long for a tile or a prompt (figures in
``docs/performance.md``). Scores are made in portions that stay in the core's cache; they are rounded to bfloat16 before
the softmax, as in the reference's eager attention.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

#: Scores in memory together, over all heads: 4 MiB in bfloat16.
PORTION = 2**21
#: Most queries whose scores are made together: smaller blocks skip more keys that none of theirs sees.
MAX_BLOCK = 128
#: Numbers of keys are multiples of this: the softmax is half as fast for others, and every new shape costs a kernel.
ALIGNMENT = 32
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


def attend_causally(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attention of one sequence's newest tokens over its tokens up to themselves, by whichever way is faster.

    Args:
        query: (queries, heads, head_dim).
        key: (keys, key heads, head_dim), at least as many as queries.
        value: As key.
        scale: Factor on the scores.

    Returns:
        (queries, heads * head_dim).
    """
    by_head = query.transpose(0, 1).unsqueeze(0)
    if products_pay(by_head):
        return _attend_by_products(query, key, value, scale)
    num_queries, num_keys = query.shape[0], key.shape[0]
    visible = None
    if 1 < num_queries < num_keys:
        visible = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device).tril(num_keys - num_queries)
    attended = scaled_dot_product_attention(
        by_head,
        key.transpose(0, 1).unsqueeze(0),
        value.transpose(0, 1).unsqueeze(0),
        attn_mask=visible,
        is_causal=1 < num_queries == num_keys,
        scale=scale,
        enable_gqa=query.shape[1] > key.shape[1],
    )
    return attended[0].transpose(0, 1).reshape(num_queries, -1)


def _attend_by_products(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """As `attend_causally`: blocks of queries over the keys that some query of theirs sees, heads in groups."""
    num_queries, heads, head_dim = query.shape
    key_heads, group = key.shape[1], heads // key.shape[1]
    # Keys that follow all queries are hidden from them, so that padding needs no mask of its own.
    num_keys = -(-key.shape[0] // ALIGNMENT) * ALIGNMENT
    padding = num_keys - key.shape[0]
    offset = num_keys - padding - num_queries
    turned = key.new_zeros(key_heads, head_dim, num_keys)
    turned[:, :, : key.shape[0]] = key.permute(1, 2, 0)
    values = value.new_zeros(key_heads, num_keys, head_dim)
    values[:, : key.shape[0]] = value.transpose(0, 1)
    scaled = query.new_zeros(key_heads, group, num_queries + padding, head_dim)
    torch.mul(
        query.view(num_queries, key_heads, group, head_dim).permute(1, 2, 0, 3), scale, out=scaled[:, :, :num_queries]
    )
    output = query.new_empty(num_queries + padding, heads * head_dim)
    block = min(MAX_BLOCK, max(ALIGNMENT, PORTION // (heads * num_keys) // ALIGNMENT * ALIGNMENT))
    # From the end, so that the numbers of keys stay aligned.
    for stop in range(num_queries + padding, 0, -block):
        start, seen = max(0, stop - block), offset + stop
        hidden = torch.full((stop - start, stop - start), -torch.inf, dtype=query.dtype).triu_(1)
        # The heads of a group become further queries of their key head.
        folded = scaled[:, :, start:stop].reshape(key_heads, -1, head_dim)
        scores = torch.bmm(folded, turned[:, :, :seen])
        scores.view(key_heads, group, stop - start, seen)[..., offset + start :].add_(hidden)
        mixed = torch.bmm(scores.softmax(-1), values[:, :seen])
        by_query = output[start:stop].view(stop - start, key_heads, group, head_dim)
        by_query.copy_(mixed.view(key_heads, group, stop - start, head_dim).permute(2, 0, 1, 3))
    return output[:num_queries]
