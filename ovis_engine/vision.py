"""The vision tower with the visual head behind it: tiles in, visual embeddings out.

Ported from AIDC-AI/Ovis, branch v2.0, commit d1283c93 (``visual_tokenizer``); branch v1.6 computes the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ovis_engine.aimv2 import Aimv2Tower
from ovis_engine.config import NUM_INDICATORS, OvisConfig
from ovis_engine.families import Tower
from ovis_engine.siglip import SiglipTower
from ovis_engine.tiling import UInt8Array

#: Tower class by the checkpoint's name for it; each maps pixels to hidden states before any final norm.
TOWERS: dict[Tower, type[Aimv2Tower] | type[SiglipTower]] = {"aimv2": Aimv2Tower, "siglip_vision_model": SiglipTower}


class VisualEncoder(nn.Module):
    """Tower, visual head and visual embedding table: the whole way from pixels to visual embeddings.

    Not thread-safe by itself; one thread at a time may call it.
    """

    def __init__(self, config: OvisConfig) -> None:
        super().__init__()
        vision = config.vision
        self.stride = vision.hidden_stride
        self.tower = TOWERS[vision.tower](vision)
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
        return self.embed(self.probabilities(self.features(pixels)))

    def embed(self, probabilities: Tensor) -> Tensor:
        """Maps probabilities (n, tokens, visual words) to visual embeddings (n, tokens, hidden)."""
        # The slice rather than zeros for the indicators: the probability tensor is the largest there is.
        return probabilities @ self.table[: self.num_words]


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
        # torch.tensor copies: the caller's array may be a read-only view of a pipe's buffer. It knows no negative
        # strides.
        values = torch.tensor(np.ascontiguousarray(tile)).float()
        normalised = (values * (1 / 255) - mean) / std  # (h, w, 3)
        slot[:, top : top + height, left : left + width] = normalised.permute(2, 0, 1)
    return pixels
