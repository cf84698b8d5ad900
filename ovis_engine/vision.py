"""The vision tower and visual head of Ovis2: tiles in, visual embeddings out.

Ported from AIDC-AI/Ovis, branch v2.0, commit d1283c93 (``modeling_aimv2`` and ``visual_tokenizer``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovis_engine.config import NUM_INDICATORS, OvisConfig, VisionConfig
from ovis_engine.tiling import UInt8Array


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32 and scaled in the model's dtype."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalises the last dimension; keeps shape and dtype."""
        wide = hidden.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return wide.to(hidden.dtype) * self.weight


class TowerBlock(nn.Module):
    """One pre-norm transformer block with full attention and a gated feed-forward layer."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.num_heads = config.num_heads
        self.norm_1 = RMSNorm(width, config.rms_norm_eps)
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.proj = nn.Linear(width, width, bias=config.use_bias)
        self.norm_2 = RMSNorm(width, config.rms_norm_eps)
        self.fc1 = nn.Linear(width, inner, bias=config.use_bias)
        self.fc2 = nn.Linear(inner, width, bias=config.use_bias)
        self.fc3 = nn.Linear(width, inner, bias=config.use_bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps (n, patches, width) to the same shape."""
        hidden = hidden + self._attend(self.norm_1(hidden))
        normed = self.norm_2(hidden)
        mixed: Tensor = self.fc2(functional.silu(self.fc1(normed)) * self.fc3(normed))
        return hidden + mixed

    def _attend(self, hidden: Tensor) -> Tensor:
        count, patches, width = hidden.shape
        qkv = self.qkv(hidden).view(count, patches, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (n, heads, patches, head_dim)
        attended = functional.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.proj(attended.transpose(1, 2).reshape(count, patches, width))
        return projected


class Aimv2Tower(nn.Module):
    """AIMv2 without its final norm: Ovis reads the last block's hidden states."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_proj = nn.Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.patch_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.position = nn.Parameter(torch.zeros(config.patches_per_side**2, config.hidden_size))
        self.blocks = nn.ModuleList(TowerBlock(config) for _ in range(config.num_layers))

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps pixels (n, 3, side, side) to hidden states (n, patches, width), both in the model's dtype."""
        hidden: Tensor = self.patch_proj(pixels).flatten(2).transpose(1, 2)  # (n, patches, width)
        hidden = self.patch_norm(hidden) + self.position
        for block in self.blocks:
            hidden = block(hidden)
        return hidden


class VisualEncoder(nn.Module):
    """Tower, visual head and visual embedding table: the whole way from pixels to visual embeddings.

    Not thread-safe by itself; one thread at a time may call it.
    """

    def __init__(self, config: OvisConfig) -> None:
        super().__init__()
        vision = config.vision
        self.stride = vision.hidden_stride
        self.tower = Aimv2Tower(vision)
        self.num_words = vision.visual_vocab_size - NUM_INDICATORS
        self.head_linear = nn.Linear(vision.hidden_size * self.stride**2, self.num_words, bias=False)
        self.head_norm = nn.LayerNorm(self.num_words)
        self.table = nn.Parameter(torch.zeros(vision.visual_vocab_size, config.hidden_size))

    @property
    def indicators(self) -> Tensor:
        """Embeddings (5, hidden) of image start, after-thumbnail, column, row and image end."""
        return self.table[self.num_words :]

    def features(self, pixels: Tensor) -> Tensor:
        """Maps pixels (n, 3, side, side) to head inputs (n, tokens_per_tile, width * stride * stride)."""
        return merge_neighbours(self.tower(pixels), self.stride)

    def probabilities(self, features: Tensor) -> Tensor:
        """Maps head inputs to probabilities (n, tokens_per_tile, visual words), softmax in the model's dtype."""
        return functional.softmax(self.head_norm(self.head_linear(features)), dim=-1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps pixels (n, 3, side, side) to visual embeddings (n, tokens_per_tile, hidden) in the model's dtype.

        The probability tensor takes n * tokens_per_tile * visual words; callers keep n small.
        """
        return self.probabilities(self.features(pixels)) @ self.table[: self.num_words]


def merge_neighbours(hidden: Tensor, stride: int) -> Tensor:
    """Joins each stride x stride square of patches into one token, zero-padding right and bottom first.

    Args:
        hidden: (n, patches, width) where patches is a square number, row by row.
        stride: Patches per direction that are joined.

    Returns:
        (n, ceil(side / stride) squared, width * stride * stride), same dtype.
    """
    count, patches, width = hidden.shape
    side = round(patches**0.5)
    missing = -side % stride
    grid = functional.pad(hidden.view(count, side, side, width), (0, 0, 0, missing, 0, missing))
    merged = (side + missing) // stride
    grid = grid.view(count, merged, stride, merged, stride, width).permute(0, 1, 3, 2, 4, 5)
    return grid.reshape(count, merged * merged, stride * stride * width)


def to_pixels(tiles: Sequence[UInt8Array], config: OvisConfig) -> Tensor:
    """Normalises tiles, then pads them with zeros, centred.

    Args:
        tiles: uint8 arrays (h, w, 3) with h, w at most the model's side.
        config: Gives side, mean and standard deviation.

    Returns:
        float32 (n, 3, side, side) on the CPU.
    """
    side = config.vision.image_size
    mean, std = torch.tensor(config.image_mean), torch.tensor(config.image_std)
    pixels = torch.zeros(len(tiles), 3, side, side)
    for slot, tile in zip(pixels, tiles, strict=True):
        height, width, _ = tile.shape
        top, left = (side - height) // 2, (side - width) // 2
        # torch.tensor copies: the caller's array may be a read-only view of a pipe's buffer.
        normalised = (torch.tensor(tile).float() * (1 / 255) - mean) / std  # (h, w, 3)
        slot[:, top : top + height, left : left + width] = normalised.permute(2, 0, 1)
    return pixels
