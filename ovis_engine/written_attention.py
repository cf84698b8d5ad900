"""Attention as plain matrix products: where SDPA's CPU kernel falls short of them.

In bfloat16 on a CPU with AVX-512 but without AMX, SDPA takes twice as long for a tile or a prompt (figures in
``docs/performance.md``). Scores are made in portions that stay in the core's cache; they are rounded to bfloat16 before
the softmax, as in the reference's eager attention.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

#: Scores in memory together, over all heads: 4 MiB in bfloat16.
PORTION = 2**21
#: Most queries whose scores are made together: smaller blocks skip more keys that none of theirs sees.
MAX_BLOCK = 128
#: Numbers of keys are multiples of this: the softmax is half as fast for others, and every new shape costs a kernel.
ALIGNMENT = 32
#: Fewest queries for which products are worth their setup: 24 over 2 000 keys take half of what SDPA takes, 8 as long.
MIN_QUERIES = 8


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
    scores = query.new_empty(query.shape[2], key.shape[2])
    for picture in range(query.shape[0]):
        for head in range(query.shape[1]):
            # The same memory for all heads: it stays in the core's cache.
            torch.mm(scaled[picture, head], key[picture, head].t(), out=scores)
            torch.softmax(scores, -1, out=scores)
            output[picture, head] = torch.mm(scores, value[picture, head])
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
    scaled = _by_head(query, padding).mul_(scale).view(key_heads, group, -1, head_dim)
    keys, values = _by_head(key, padding), _by_head(value, padding)
    output = query.new_empty(num_queries + padding, key_heads, group, head_dim)
    by_head = output.permute(1, 2, 0, 3)
    block = min(MAX_BLOCK, max(ALIGNMENT, PORTION // (heads * num_keys) // ALIGNMENT * ALIGNMENT))
    # From the end, so that the numbers of keys stay aligned.
    for stop in range(num_queries + padding, 0, -block):
        start, seen = max(0, stop - block), offset + stop
        # The heads of a group become further queries of their key head.
        folded = scaled[:, :, start:stop].reshape(key_heads, -1, head_dim)
        scores = torch.bmm(folded, keys[:, :seen].transpose(1, 2))
        shape = key_heads, group, stop - start
        scores.view(*shape, seen)[..., offset + start :].add_(_future(stop - start, query.dtype))
        weights = torch.softmax(scores, -1, out=scores)
        by_head[:, :, start:stop] = torch.bmm(weights, values[:, :seen]).view(*shape, head_dim)
    return output[:num_queries].view(num_queries, -1)


def _by_head(states: Tensor, padding: int) -> Tensor:
    """Copies (tokens, heads, head_dim) to (heads, tokens + padding, head_dim); the padding is zero."""
    tokens, heads, head_dim = states.shape
    copied = states.new_empty(heads, tokens + padding, head_dim)
    copied[:, :tokens] = states.transpose(0, 1)
    copied[:, tokens:] = 0
    return copied


@lru_cache(maxsize=64)
def _future(count: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores of some tokens over themselves: minus infinity for those that follow, else 0."""
    return torch.full((count, count), -torch.inf, dtype=dtype).triu_(1)
