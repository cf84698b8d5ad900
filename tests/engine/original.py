"""Writes tiny random checkpoints in the original layout, and real ones again in the converted layout."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.ovis2 import Ovis2Config, Ovis2ForConditionalGeneration

from ovis_engine.checkpoint import empty_model
from ovis_engine.config import read_config

Json = dict[str, Any]

#: Our names -> the original ones, first match wins; written from the published files, not from the engine's rules.
TO_ORIGINAL = (
    (r"^language_model\.(.+)$", r"llm.\1"),
    (r"^encoder\.table$", "vte.weight"),
    (r"^encoder\.head_linear\.weight$", "visual_tokenizer.head.0.weight"),
    (r"^encoder\.head_norm\.(.+)$", r"visual_tokenizer.head.1.\1"),
)
TO_AIMV2 = (
    (r"^encoder\.tower\.patch_proj\.", "preprocessor.patchifier.proj."),
    (r"^encoder\.tower\.patch_norm\.", "preprocessor.patchifier.norm."),
    (r"^encoder\.tower\.position$", "preprocessor.pos_embed"),
    (r"^encoder\.tower\.blocks\.(\d+)\.(qkv|proj)\.", r"trunk.blocks.\1.attn.\2."),
    (r"^encoder\.tower\.blocks\.(\d+)\.(fc\d)\.", r"trunk.blocks.\1.mlp.\2."),
    (r"^encoder\.tower\.blocks\.", "trunk.blocks."),
)
TO_SIGLIP = (
    (r"^encoder\.tower\.patch_proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^encoder\.tower\.position$", "vision_model.embeddings.position_embedding.weight"),
    (r"^encoder\.tower\.blocks\.(\d+)\.norm_(\d)\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"^encoder\.tower\.blocks\.(\d+)\.proj\.", r"vision_model.encoder.layers.\1.self_attn.out_proj."),
    (r"^encoder\.tower\.blocks\.(\d+)\.(fc\d)\.", r"vision_model.encoder.layers.\1.mlp.\2."),
    (r"^encoder\.tower\.blocks\.(\d+)\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.{}_proj."),
)

#: Original names -> those of transformers' own Ovis2 class.
TO_CONVERTED = (
    (r"^llm\.model\.", "model.language_model."),
    (r"^llm\.lm_head\.", "lm_head."),
    (r"^vte\.", "model.visual_embeddings_table."),
    (r"^visual_tokenizer\.head\.0\.", "model.vision_tower.head_linear."),
    (r"^visual_tokenizer\.head\.1\.", "model.vision_tower.head_norm."),
    (r"^visual_tokenizer\.backbone\.", "model.vision_tower.transformer."),
    (r"preprocessor\.patchifier\.proj\.", "embeddings.patch_embedding."),
    (r"preprocessor\.patchifier\.norm\.", "embeddings.rms_norm."),
    (r"preprocessor\.pos_embed$", "embeddings.position_embedding.weight"),
    (r"trunk\.post_trunk_norm\.", "rms_norm."),
    (r"trunk\.blocks\.(\d+)\.norm_", r"encoder.layers.\1.rms_norm"),
    (r"trunk\.blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.attention.out_proj."),
    (r"trunk\.blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.attention.{}_proj."),
    (r"trunk\.blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layers.\1.ffn.gate_proj."),
    (r"trunk\.blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layers.\1.ffn.down_proj."),
    (r"trunk\.blocks\.(\d+)\.mlp\.fc3\.", r"encoder.layers.\1.ffn.up_proj."),
)


def write_original(directory: Path, config: Json, like: Path, *, seed: int = 0) -> None:
    """Writes a checkpoint with random weights.

    Args:
        directory: Made and filled.
        config: Its ``config.json``.
        like: A checkpoint that lends the tokenizer and the picture's normalisation.
        seed: Of the weights.
    """
    shutil.copytree(like, directory, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    read = read_config(directory)
    siglip = read.vision.tower == "siglip_vision_model"
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for ours, parameter in empty_model(read, torch.float32).named_parameters():
        value = torch.randn(parameter.shape, generator=generator) * 0.05
        name = renamed(ours, TO_ORIGINAL)
        if name == ours:
            name = "visual_tokenizer.backbone." + renamed(ours, TO_SIGLIP if siglip else TO_AIMV2)
        if name.endswith("pos_embed"):
            value = value[None]
        tensors |= split(name, value)
    save_file(tensors, directory / "model.safetensors")


def write_converted(directory: Path, original: Path) -> None:
    """Writes an original Ovis2 checkpoint again as ``thisisiron/Ovis2-*-hf`` are: by transformers' own class."""
    config = json.loads((original / "config.json").read_text(encoding="utf-8"))
    visual, text = config["visual_tokenizer_config"], config["llm_config"]
    backbone = visual["backbone_config"]
    kept = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
    converted = Ovis2Config(
        text_config=text,
        vision_config={name: backbone[name] for name in (*kept, "rms_norm_eps", "qkv_bias")}
        | {name: visual[name] for name in ("vocab_size", "hidden_stride", "tokenize_function")},
        hidden_size=text["hidden_size"],
        vocab_size=text["vocab_size"],
        tie_word_embeddings=text["tie_word_embeddings"],
    )
    tensors: dict[str, Tensor] = {}
    for name, value in load_file(original / "model.safetensors").items():
        value = value[0] if name.endswith("pos_embed") else value
        tensors |= split(renamed(name, TO_CONVERTED), value)
    model = Ovis2ForConditionalGeneration(converted)
    model.load_state_dict(tensors, strict=True)
    model.save_pretrained(directory)
    for file in ("tokenizer.json", "preprocessor_config.json", "generation_config.json"):
        shutil.copyfile(original / file, directory / file)


def renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    """The name after every rule."""
    for pattern, place in rules:
        name = re.sub(pattern, place, name)
    return name


def split(name: str, value: Tensor) -> dict[str, Tensor]:
    """Cuts a joined projection in three where the name has room for q, k and v."""
    if "{}" not in name:
        return {name: value}
    return {name.format(letter): part.clone() for letter, part in zip("qkv", value.chunk(3), strict=True)}
