"""The vision tower of Ovis1.6.

Written after the published architecture (``SiglipVisionModel``), without the final norm and the pooling head that Ovis
does not read: AIDC-AI/Ovis, branch v1.6, commit d248e34d takes the last layer's hidden states before them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovis_engine.aimv2 import attend, row_major
from ovis_engine.config import VisionConfig


class SiglipBlock(nn.Module):
    """One pre-norm transformer block with full attention; query, key and value are one projection."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.num_heads = config.num_heads
        self.norm_1 = nn.LayerNorm(width, eps=config.norm_eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width, eps=config.norm_eps)
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps (n, patches, width) to the same shape."""
        hidden = hidden + self.proj(attend(self.qkv(self.norm_1(hidden)), self.num_heads))
        mixed: Tensor = self.fc2(functional.gelu(self.fc1(self.norm_2(hidden)), approximate="tanh"))
        return hidden + mixed


class SiglipTower(nn.Module):
    """SigLIP up to its last block. Patches that do not fill a whole one at the right and bottom are left out."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_proj = nn.Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.position = nn.Parameter(torch.zeros(config.patches_per_side**2, config.hidden_size))
        self.blocks = nn.ModuleList(SiglipBlock(config) for _ in range(config.num_layers))

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps pixels (n, 3, side, side) to hidden states (n, patches, width), both in the model's dtype."""
        hidden: Tensor = self.patch_proj(pixels).flatten(2).transpose(1, 2)  # (n, patches, width)
        hidden = row_major(hidden) + self.position
        for block in self.blocks:
            hidden = block(hidden)
        return hidden
