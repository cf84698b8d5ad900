"""Attention over a packed batch on the CPU, and the choice of attention per device.

transformers' own SDPA path builds a dense mask over the whole packed batch. An implementation whose name contains
"flash" gets the sequences' boundaries instead; this one walks them, one SDPA call per sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, starmap
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask
from transformers.utils import is_flash_attn_2_available

#: The library hands out boundaries instead of masks because of the word "flash" in it.
CPU_ATTENTION = "ovis_flash_cpu"


def choose_attention(device: torch.device, dtype: torch.dtype) -> str:
    """Names the attention implementation for a device, registering ours if it is chosen.

    On CUDA it is FlashAttention 2 where installed and the dtype allows, else SDPA (not run on a GPU by this project).
    """
    if device.type == "cpu":
        AttentionInterface.register(CPU_ATTENTION, cpu_attention)
        AttentionMaskInterface.register(CPU_ATTENTION, flash_attention_mask)
        return CPU_ATTENTION
    if is_flash_attn_2_available() and dtype in (torch.float16, torch.bfloat16):
        return "flash_attention_2"
    return "sdpa"


def cpu_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    cache: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention with grouped heads, for batches packed over a paged cache and for plain ones.

    Args:
        module: The attention layer; gives ``layer_idx``.
        query: (b, heads, tokens, head_dim); b is 1 for a packed batch.
        key: (b, key heads, tokens, head_dim), same dtype.
        value: As key.
        attention_mask: None; padding is not supported.
        scaling: Factor on the scores.
        cache: The library's paged cache for a packed batch; None for a plain batch.
        **kwargs: The library's batch description.

    Returns:
        (b, tokens, heads, head_dim) and None for the weights.

    Raises:
        ValueError: If an attention mask, a sliding window or a softcap is asked for.
    """
    if attention_mask is not None or kwargs.get("sliding_window") or kwargs.get("softcap"):
        raise ValueError("padding masks, sliding windows and softcaps are not supported by this attention")
    if cache is None:
        return _attend(query, key, value, scaling).transpose(1, 2), None
    # Writes the new tokens and returns all tokens of all sequences.
    key, value = cache.update(key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs)
    output = torch.empty_like(query)
    for queries, keys in zip(_spans(kwargs["cu_seq_lens_q"]), _spans(kwargs["cu_seq_lens_k"]), strict=True):
        output[:, :, queries] = _attend(query[:, :, queries], key[:, :, keys], value[:, :, keys], scaling)
    return output.transpose(1, 2), None


def _spans(ends: Tensor) -> Iterator[slice]:
    """Each sequence's place in the packed batch, from cumulative lengths that start with 0."""
    return starmap(slice, pairwise(ends.tolist()))


def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Attention of one sequence's newest queries over all its keys, causal and aligned at the end."""
    batch, heads, num_queries, head_dim = query.shape
    key_heads, num_keys = key.shape[1], key.shape[2]
    grouped = heads > key_heads
    if num_queries == 1:
        # One query per head sees every key: the heads of a group become queries of their key head.
        folded = query.reshape(batch, key_heads, heads // key_heads, head_dim)
        attended = scaled_dot_product_attention(folded, key, value, scale=scaling)
        return attended.reshape(batch, heads, 1, head_dim)
    if num_queries == num_keys:
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)
    visible = torch.ones(num_queries, num_keys, dtype=torch.bool).tril(num_keys - num_queries)
    return scaled_dot_product_attention(query, key, value, attn_mask=visible, scale=scaling, enable_gqa=grouped)
