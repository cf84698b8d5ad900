"""The decoder layer that Qwen2 and Llama share, written for a CPU in bfloat16: fewer and larger passes over memory.

Queries, keys and values come out of one product. The two halves that the rotary embedding turns together lie side by
side, so that a rotation is one multiplication of complex numbers, in float32. Sums with the residual ride on the
products. Of the last layer only what logits are made from is computed, besides the keys and values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ovis_engine.attention import packed_attention
from ovis_engine.packing import PackedGatedMlp, PackedLinear
from ovis_engine.steps import STEP, Step


class PackedNorm(nn.Module):
    """Root-mean-square norm in float32, rounded once."""

    def __init__(self, norm: Any) -> None:
        """Copies a library norm's weight (width)."""
        super().__init__()
        self.weight = nn.Parameter(norm.weight.detach().float(), requires_grad=False)
        self.eps = torch.tensor(norm.variance_epsilon)

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalises the last dimension; keeps shape and dtype."""
        # Arithmetic in float32 is several times as fast as in bfloat16 where the CPU has no instructions for it.
        wide = hidden.to(torch.float32, copy=True)
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        factor = torch.addcmul(self.eps, length, length, value=1 / wide.shape[-1]).rsqrt_()
        return wide.mul_(factor).mul_(self.weight).to(hidden.dtype)


class Rotations(nn.Module):
    """The rotary embedding as complex factors, made once for all layers."""

    def __init__(self, rotary: nn.Module) -> None:
        """Takes over the library's module, which gives cosines and sines."""
        super().__init__()
        self._rotary = rotary

    def forward(self, hidden: Tensor, position_ids: Tensor) -> Tensor:
        """Factors (b, tokens, 1, head_dim / 2), complex64, for positions (b, tokens)."""
        cosines, sines = self._rotary(hidden[..., :0].float(), position_ids)
        half = cosines.shape[-1] // 2
        return torch.complex(cosines[..., :half], sines[..., :half]).unsqueeze(2)


class PackedLayer(nn.Module):
    """A decoder layer over packed products."""

    def __init__(self, layer: Any, activation: str, *, is_last: bool) -> None:
        """Packs a library layer, whose weights it copies.

        Args:
            layer: For which `packs` holds.
            activation: The gate's, by the kernels' name.
            is_last: Whether nothing but logits follows.
        """
        super().__init__()
        attention = layer.self_attn
        #: Read by the attention function.
        self.layer_idx: int = attention.layer_idx
        self._scale, self._head_dim, self._is_last = attention.scaling, attention.head_dim, is_last
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        #: Heads of queries, keys and values.
        self._parts = [part.out_features // self._head_dim for part in parts]
        self.norm, self.mlp_norm = PackedNorm(layer.input_layernorm), PackedNorm(layer.post_attention_layernorm)
        self.joined, self.out = PackedLinear(_join(attention)), PackedLinear(attention.o_proj)
        self.mlp = PackedGatedMlp(layer.mlp, activation)

    def forward(
        self,
        hidden: Tensor,
        *,
        position_embeddings: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **batch: Any,
    ) -> Tensor:
        """Maps (b, tokens, width) to the same shape; `Rotations` made the position embeddings.

        With a `Step` in the batch the last layer changes only the sequences' last tokens, in place.
        """
        heads = self._heads(self.norm(hidden), position_embeddings)
        step: Step | None = batch.get(STEP)
        if step is None:
            query, key, value = (part.transpose(1, 2) for part in torch.split(heads, self._parts, dim=2))
            if past_key_values is not None:
                key, value = past_key_values.update(key, value, self.layer_idx)
            attended, _ = packed_attention(self, query, key, value, attention_mask, scaling=self._scale, **batch)
            return self._finish(attended.flatten(2), hidden)
        query, fresh = heads[0].tensor_split([self._parts[0]], dim=1)
        keys = step.write(batch, self.layer_idx, fresh)
        if not (self._is_last and step.chunks):
            return self._finish(step.attend(query, keys, self._scale).unsqueeze(0), hidden)
        places = step.last_tokens
        attended = step.attend_last_tokens(query, keys, self._scale)
        hidden[0, places] = self._finish(attended, hidden[0, places])
        return hidden

    def _heads(self, normed: Tensor, rotations: Tensor) -> Tensor:
        """Queries, keys and values (b, tokens, all their heads, head_dim), the first two turned."""
        heads: Tensor = self.joined(normed).view(*normed.shape[:2], -1, self._head_dim)
        turned = heads[:, :, : -self._parts[2]]
        wide = turned.float()
        torch.view_as_complex(wide.view(*wide.shape[:-1], -1, 2)).mul_(rotations)
        turned.copy_(wide)
        return heads

    def _finish(self, attended: Tensor, hidden: Tensor) -> Tensor:
        """What follows the attention (..., heads * head_dim)."""
        hidden = self.out.plus(attended, hidden)
        return self.mlp.plus(self.mlp_norm(hidden), hidden)


def _join(attention: Any) -> nn.Linear:
    """One layer for queries, keys and values, with each turned pair side by side."""
    head_dim = attention.head_dim
    pairs = torch.arange(head_dim).view(2, -1).t().flatten()
    turned = attention.q_proj.out_features + attention.k_proj.out_features
    order = torch.arange(turned).view(-1, head_dim)[:, pairs].flatten()
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    weight = torch.cat([part.weight.detach() for part in parts])
    joined = nn.Linear(weight.shape[1], weight.shape[0], bias=parts[0].bias is not None, device="meta")
    order = torch.cat((order, torch.arange(turned, weight.shape[0])))
    joined.weight = nn.Parameter(weight[order], requires_grad=False)
    if parts[0].bias is not None:
        bias = torch.cat([part.bias.detach() for part in parts])
        joined.bias = nn.Parameter(bias[order], requires_grad=False)
    return joined
