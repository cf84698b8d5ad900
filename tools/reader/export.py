"""Writes a trained model as a checkpoint folder in the original Ovis2 layout, in bfloat16."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ovis_engine.checkpoint import OvisModel
from tools.reader.shape import TOWER_WIDTH, write_json_files

_BACKBONE = "visual_tokenizer.backbone."

#: (pattern of the engine's parameter name, stored name): what `ovis_engine.renaming` reads, backwards.
_STORED: tuple[tuple[str, str], ...] = (
    (r"^language_model\.(.+)$", r"llm.\1"),
    (r"^encoder\.table$", r"vte.weight"),
    (r"^encoder\.head_linear\.(.+)$", r"visual_tokenizer.head.0.\1"),
    (r"^encoder\.head_norm\.(.+)$", r"visual_tokenizer.head.1.\1"),
    (r"^encoder\.tower\.patch_proj\.(.+)$", rf"{_BACKBONE}preprocessor.patchifier.proj.\1"),
    (r"^encoder\.tower\.patch_norm\.(.+)$", rf"{_BACKBONE}preprocessor.patchifier.norm.\1"),
    (r"^encoder\.tower\.position$", rf"{_BACKBONE}preprocessor.pos_embed"),
    (r"^encoder\.tower\.blocks\.(\d+)\.(norm_[12])\.(.+)$", rf"{_BACKBONE}trunk.blocks.\1.\2.\3"),
    (r"^encoder\.tower\.blocks\.(\d+)\.(qkv|proj)\.(.+)$", rf"{_BACKBONE}trunk.blocks.\1.attn.\2.\3"),
    (r"^encoder\.tower\.blocks\.(\d+)\.(fc[123])\.(.+)$", rf"{_BACKBONE}trunk.blocks.\1.mlp.\2.\3"),
)


def stored_name(name: str) -> str:
    """The original layout's name for a parameter of `OvisModel`."""
    for pattern, stored in _STORED:
        if re.match(pattern, name):
            return re.sub(pattern, stored, name)
    raise ValueError(f"no stored name for {name}")


def export(model: OvisModel, directory: Path) -> None:
    """Writes config, tokenizer and weights; the folder is made if needed."""
    write_json_files(directory)
    tensors = {stored_name(name): _stored(value, name) for name, value in model.named_parameters()}
    # The layout has the tower's final norm, which Ovis never applies.
    tensors[f"{_BACKBONE}trunk.post_trunk_norm.weight"] = torch.ones(TOWER_WIDTH, dtype=torch.bfloat16)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def _stored(value: Tensor, name: str) -> Tensor:
    stored = value.detach().to(torch.bfloat16).contiguous()
    # The original stores position embeddings with a batch dimension.
    return stored[None] if name == "encoder.tower.position" else stored
