"""Attention over a packed batch on the CPU, and the choice of attention per device.

transformers' own SDPA path builds a dense mask over the whole packed batch. An implementation whose name contains
"flash" gets the sequences' boundaries instead; this one walks them, one SDPA call per sequence. Gemma2's softcap and
sliding window, which SDPA cannot do, are written out over blocks of queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, starmap
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask
from transformers.utils import is_flash_attn_2_available

from ovis_engine.steps import STEP, Step
from ovis_engine.written_attention import attend_causally, products_pay

#: The library hands out boundaries instead of masks because of the word "flash" in it.
PACKED_ATTENTION = "ovis_flash_packed"

#: Queries whose scores are in memory together where they are written out: 256 x 8192 keys x 16 heads are 128 MiB.
QUERY_BLOCK = 256


@dataclass(frozen=True)
class Scoring:
    """How scores are made and which keys count.

    Attributes:
        scale: Factor on the products; None means one over the square root of head_dim.
        softcap: Scores are squeezed into -softcap..softcap; None leaves them.
        window: Newest keys that a query sees, itself included; None means all.
    """

    scale: float | None = None
    softcap: float | None = None
    window: int | None = None


def choose_attention(device: torch.device, dtype: torch.dtype, *, softcap: bool = False) -> str:
    """Names the attention implementation for a device, registering ours if it is chosen.

    On CUDA it is FlashAttention 2 where installed and the dtype allows, else SDPA, or ours for a model with a softcap,
    which SDPA would leave out (not run on a GPU by this project).

    Args:
        device: Where the language model runs.
        dtype: Its dtype.
        softcap: Whether its attention scores are capped.
    """
    if device.type != "cpu":
        if is_flash_attn_2_available() and dtype in (torch.float16, torch.bfloat16):
            return "flash_attention_2"
        if not softcap:
            return "sdpa"
    AttentionInterface.register(PACKED_ATTENTION, packed_attention)
    AttentionMaskInterface.register(PACKED_ATTENTION, flash_attention_mask)
    return PACKED_ATTENTION


def set_attention(language_model: PreTrainedModel) -> None:
    """Makes a loaded language model use what `choose_attention` names for it."""
    config = language_model.config
    softcap = getattr(config, "attn_logit_softcapping", None) is not None
    # Set on the configuration directly: the setter tries to import a kernel by that name.
    config._attn_implementation = choose_attention(language_model.device, language_model.dtype, softcap=softcap)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
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
        softcap: As in `Scoring`.
        sliding_window: As `Scoring.window`.
        cache: The library's paged cache for a packed batch; None for a plain batch.
        **kwargs: The library's batch description.

    Returns:
        (b, tokens, heads, head_dim) and None for the weights.

    Raises:
        ValueError: If an attention mask is given.
    """
    if attention_mask is not None:
        raise ValueError("padding masks are not supported by this attention")
    scoring = Scoring(scaling, softcap, sliding_window)
    if cache is None:
        return _attend(query, key, value, scoring).transpose(1, 2), None
    step: Step | None = kwargs.get(STEP)
    if step is not None and softcap is None and sliding_window is None:
        query, key, value = (heads[0].transpose(0, 1) for heads in (query, key, value))
        states = step.write(kwargs | {"cache": cache}, cast(int, module.layer_idx), torch.cat((key, value), 1))
        return step.attend(query, states, _scale(scaling, query)).view(1, *query.shape), None
    # Writes the new tokens and returns all tokens that some query may see, of all sequences.
    key, value = cache.update(key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs)
    output = torch.empty_like(query)
    for queries, keys in zip(_spans(kwargs["cu_seq_lens_q"]), _spans(kwargs["cu_seq_lens_k"]), strict=True):
        output[:, :, queries] = _attend(query[:, :, queries], key[:, :, keys], value[:, :, keys], scoring)
    return output.transpose(1, 2), None


def _scale(scale: float | None, query: Tensor) -> float:
    return query.shape[-1] ** -0.5 if scale is None else scale


def _spans(ends: Tensor) -> Iterator[slice]:
    """Each sequence's place in the packed batch, from cumulative lengths that start with 0."""
    return starmap(slice, pairwise(ends.tolist()))


def _attend(query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
    """Attention of one sequence's newest queries over all its keys, causal and aligned at the end."""
    batch, heads, num_queries, head_dim = query.shape
    key_heads, num_keys = key.shape[1], key.shape[2]
    window_matters = scoring.window is not None and num_keys > scoring.window
    if scoring.softcap is not None or window_matters:
        return _attend_written_out(query, key, value, scoring)
    grouped = heads > key_heads
    if num_queries == 1:
        # One query per head sees every key: the heads of a group become queries of their key head.
        folded = query.reshape(batch, key_heads, heads // key_heads, head_dim)
        attended = scaled_dot_product_attention(folded, key, value, scale=scoring.scale)
        return attended.reshape(batch, heads, 1, head_dim)
    if batch == 1 and products_pay(query):
        by_token = [states[0].transpose(0, 1) for states in (query, key, value)]
        attended = attend_causally(by_token[0], by_token[1], by_token[2], _scale(scoring.scale, query))
        return attended.view(1, num_queries, heads, head_dim).transpose(1, 2)
    if num_queries == num_keys:
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scoring.scale, enable_gqa=grouped)
    visible = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device).tril(num_keys - num_queries)
    return scaled_dot_product_attention(query, key, value, attn_mask=visible, scale=scoring.scale, enable_gqa=grouped)


def _attend_written_out(query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
    """As `_attend`, without SDPA: a block of queries at a time over the keys that some query of it sees."""
    num_queries, offset = query.shape[2], key.shape[2] - query.shape[2]
    output = torch.empty_like(query)
    for start in range(0, num_queries, QUERY_BLOCK):
        stop = min(start + QUERY_BLOCK, num_queries)
        first = 0 if scoring.window is None else max(0, start + offset - scoring.window + 1)
        keys = slice(first, stop + offset)
        hidden = None
        if stop - start > 1:
            # How far each key lies behind each query; a query sees distances from 0 up.
            positions = torch.arange(start + offset, stop + offset, device=query.device)
            distance = positions[:, None] - torch.arange(first, stop + offset, device=query.device)
            hidden = distance < 0 if scoring.window is None else (distance < 0) | (distance >= scoring.window)
        output[:, :, start:stop] = _weigh(query[:, :, start:stop], key[:, :, keys], value[:, :, keys], hidden, scoring)
    return output


def _weigh(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None, scoring: Scoring) -> Tensor:
    """Softmax attention with capped scores; ``hidden`` (queries, keys) is True where a query must not look."""
    batch, heads, num_queries, head_dim = query.shape
    key_heads = key.shape[1]
    scale = _scale(scoring.scale, query)
    # The heads of a group become queries of their key head, so that keys and values are not copied for each.
    folded = query.reshape(batch, key_heads, -1, head_dim)
    scores = (folded @ key.transpose(-1, -2)) * scale  # (b, key heads, group * queries, keys)
    if scoring.softcap is not None:
        scores = torch.tanh(scores / scoring.softcap) * scoring.softcap
    if hidden is not None:
        scores.view(batch, key_heads, -1, num_queries, key.shape[2]).masked_fill_(hidden, -torch.inf)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).reshape(batch, heads, num_queries, head_dim)
