"""Stored tensor names to ours, by anchored rules: one set per layout and tower."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ovis_engine.config import Layout
from ovis_engine.families import Tower

_PLACES = r"(weight|bias)$"

#: (pattern of the stored name, our name); an empty name drops the tensor. ``#q``, ``#k`` and ``#v`` after our name
#: say that the tensor is a third of ours.
Rules = tuple[tuple[str, str], ...]

_ORIGINAL: Rules = (
    (r"^llm\.(model\..+|lm_head\.weight)$", r"language_model.\1"),
    (r"^vte\.weight$", r"encoder.table"),
    (r"^visual_tokenizer\.head\.0\.weight$", r"encoder.head_linear.weight"),
    (rf"^visual_tokenizer\.head\.1\.{_PLACES}", r"encoder.head_norm.\1"),
)

_BACKBONE = r"^visual_tokenizer\.backbone\."
_ORIGINAL_AIMV2: Rules = (
    (rf"{_BACKBONE}preprocessor\.patchifier\.proj\.{_PLACES}", r"encoder.tower.patch_proj.\1"),
    (rf"{_BACKBONE}preprocessor\.patchifier\.norm\.weight$", r"encoder.tower.patch_norm.weight"),
    (rf"{_BACKBONE}preprocessor\.pos_embed$", r"encoder.tower.position"),
    (rf"{_BACKBONE}trunk\.blocks\.(\d+)\.(norm_[12])\.weight$", r"encoder.tower.blocks.\1.\2.weight"),
    (rf"{_BACKBONE}trunk\.blocks\.(\d+)\.attn\.(qkv|proj)\.{_PLACES}", r"encoder.tower.blocks.\1.\2.\3"),
    (rf"{_BACKBONE}trunk\.blocks\.(\d+)\.mlp\.(fc[123])\.{_PLACES}", r"encoder.tower.blocks.\1.\2.\3"),
    # Ovis reads the tower before its final norm.
    (rf"{_BACKBONE}trunk\.post_trunk_norm\.weight$", ""),
)

_SIGLIP = rf"{_BACKBONE}vision_model\."
_SIGLIP_LAYER = rf"{_SIGLIP}encoder\.layers\.(\d+)\."
_ORIGINAL_SIGLIP: Rules = (
    (rf"{_SIGLIP}embeddings\.patch_embedding\.{_PLACES}", r"encoder.tower.patch_proj.\1"),
    (rf"{_SIGLIP}embeddings\.position_embedding\.weight$", r"encoder.tower.position"),
    (rf"{_SIGLIP_LAYER}layer_norm([12])\.{_PLACES}", r"encoder.tower.blocks.\1.norm_\2.\3"),
    (rf"{_SIGLIP_LAYER}self_attn\.([qkv])_proj\.{_PLACES}", r"encoder.tower.blocks.\1.qkv.\3#\2"),
    (rf"{_SIGLIP_LAYER}self_attn\.out_proj\.{_PLACES}", r"encoder.tower.blocks.\1.proj.\2"),
    (rf"{_SIGLIP_LAYER}mlp\.(fc[12])\.{_PLACES}", r"encoder.tower.blocks.\1.\2.\3"),
    # Neither the final norm nor the pooling head is read.
    (rf"{_SIGLIP}(post_layernorm|head)\..+$", ""),
)

_TRANSFORMER = r"^model\.vision_tower\.transformer\."
_CONVERTED_LAYER = rf"{_TRANSFORMER}encoder\.layers\.(\d+)\."
_CONVERTED: Rules = (
    (r"^model\.language_model\.(.+)$", r"language_model.model.\1"),
    (r"^lm_head\.weight$", r"language_model.lm_head.weight"),
    (r"^model\.visual_embeddings_table\.weight$", r"encoder.table"),
    (r"^model\.vision_tower\.head_linear\.weight$", r"encoder.head_linear.weight"),
    (rf"^model\.vision_tower\.head_norm\.{_PLACES}", r"encoder.head_norm.\1"),
    (rf"{_TRANSFORMER}embeddings\.patch_embedding\.{_PLACES}", r"encoder.tower.patch_proj.\1"),
    (rf"{_TRANSFORMER}embeddings\.rms_norm\.weight$", r"encoder.tower.patch_norm.weight"),
    (rf"{_TRANSFORMER}embeddings\.position_embedding\.weight$", r"encoder.tower.position"),
    (rf"{_CONVERTED_LAYER}rms_norm([12])\.weight$", r"encoder.tower.blocks.\1.norm_\2.weight"),
    (rf"{_CONVERTED_LAYER}attention\.([qkv])_proj\.{_PLACES}", r"encoder.tower.blocks.\1.qkv.\3#\2"),
    (rf"{_CONVERTED_LAYER}attention\.out_proj\.{_PLACES}", r"encoder.tower.blocks.\1.proj.\2"),
    (rf"{_CONVERTED_LAYER}ffn\.gate_proj\.{_PLACES}", r"encoder.tower.blocks.\1.fc1.\2"),
    (rf"{_CONVERTED_LAYER}ffn\.down_proj\.{_PLACES}", r"encoder.tower.blocks.\1.fc2.\2"),
    (rf"{_CONVERTED_LAYER}ffn\.up_proj\.{_PLACES}", r"encoder.tower.blocks.\1.fc3.\2"),
    # Ovis reads the tower before its final norm.
    (rf"{_TRANSFORMER}rms_norm\.weight$", ""),
)

RULES: dict[tuple[Layout, Tower], Rules] = {
    ("original", "aimv2"): _ORIGINAL + _ORIGINAL_AIMV2,
    ("original", "siglip_vision_model"): _ORIGINAL + _ORIGINAL_SIGLIP,
    ("converted", "aimv2"): _CONVERTED,
}


@dataclass(frozen=True)
class Place:
    """Where a stored tensor belongs.

    Attributes:
        name: Our parameter; empty to drop the tensor.
        part: ``q``, ``k`` or ``v`` if it is that third of the parameter's first dimension, else empty.
    """

    name: str
    part: str


class Renamer:
    """Finds the place of a stored name. The first rule that matches wins."""

    def __init__(self, layout: Layout, tower: Tower) -> None:
        self._rules = [(re.compile(pattern), place) for pattern, place in RULES[layout, tower]]

    def place_of(self, stored: str) -> Place | None:
        """The place of a stored tensor; None if no rule knows its name."""
        for pattern, place in self._rules:
            if pattern.match(stored):
                name, _, part = pattern.sub(place, stored).partition("#")
                return Place(name, part)
        return None
