"""The vision tower of Ovis2.

Ported from AIDC-AI/Ovis, branch v2.0, commit d1283c93 (``modeling_aimv2``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ovis_engine.config import VisionConfig
from ovis_engine.packing import added_to, swish_gated
from ovis_engine.written_attention import attend_fully


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed and scaled in float32: products in bfloat16 are five times as slow on a CPU."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalises the last dimension; keeps shape and dtype."""
        wide = hidden.float()
        if hidden.dtype == torch.float32 or hidden.requires_grad:
            # As the reference has it, so that sums agree to the last bit.
            wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
            return wide.mul_(self.weight.float()).to(hidden.dtype)
        squares = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
        factor = squares.div_(wide.shape[-1]).add_(self.eps).rsqrt_()
        return wide.mul_(factor).mul_(self.weight.float()).to(hidden.dtype)


class Aimv2Block(nn.Module):
    """One pre-norm transformer block with full attention and a gated feed-forward layer."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.num_heads = config.num_heads
        self.norm_1 = RMSNorm(width, config.norm_eps)
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.proj = nn.Linear(width, width, bias=config.use_bias)
        self.norm_2 = RMSNorm(width, config.norm_eps)
        self.fc1 = nn.Linear(width, inner, bias=config.use_bias)
        self.fc2 = nn.Linear(inner, width, bias=config.use_bias)
        self.fc3 = nn.Linear(width, inner, bias=config.use_bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps (n, patches, width) to the same shape."""
        hidden = added_to(hidden, self.proj, attend(self.qkv(self.norm_1(hidden)), self.num_heads))
        return added_to(hidden, self.fc2, swish_gated(self.fc1, self.fc3, self.norm_2(hidden)))


class Aimv2Tower(nn.Module):
    """AIMv2 without its final norm: Ovis reads the last block's hidden states."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_proj = nn.Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.patch_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.position = nn.Parameter(torch.zeros(config.patches_per_side**2, config.hidden_size))
        self.blocks = nn.ModuleList(Aimv2Block(config) for _ in range(config.num_layers))

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps pixels (n, 3, side, side) to hidden states (n, patches, width), both in the model's dtype."""
        hidden: Tensor = self.patch_proj(pixels).flatten(2).transpose(1, 2)  # (n, patches, width)
        hidden = self.patch_norm(row_major(hidden)) + self.position
        for block in self.blocks:
            hidden = block(hidden)
        return hidden


def row_major(hidden: Tensor) -> Tensor:
    """The same values with each patch's side by side in memory, except in float32.

    Every norm and sum keeps the transposed layout that patches come in, and every linear layer copies it. In float32 it
    stays as the reference has it, so that sums agree to the last bit.
    """
    return hidden if hidden.dtype == torch.float32 else hidden.contiguous()


def attend(qkv: Tensor, num_heads: int) -> Tensor:
    """Full attention of patches over each other.

    Args:
        qkv: (n, patches, 3 * width): queries, keys and values side by side.
        num_heads: Attention heads that divide the width.

    Returns:
        (n, patches, width), same dtype.
    """
    count, patches, triple = qkv.shape
    heads = qkv.view(count, patches, 3, num_heads, triple // (3 * num_heads))
    query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (n, heads, patches, head_dim)
    attended = attend_fully(query, key, value)
    return attended.transpose(1, 2).reshape(count, patches, triple // 3)
