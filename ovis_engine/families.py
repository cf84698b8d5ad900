"""Which vision towers and language models make up an Ovis family. Imports nothing, so that a command can list them."""

from __future__ import annotations

from typing import Literal

Family = Literal["ovis2", "ovis1.6"]
Tower = Literal["aimv2", "siglip_vision_model"]
LanguageModel = Literal["qwen2", "gemma2", "llama"]

#: (tower, language model) of each family, by their ``model_type`` in a checkpoint's configuration.
FAMILIES: dict[tuple[Tower, LanguageModel], Family] = {
    ("aimv2", "qwen2"): "ovis2",
    ("siglip_vision_model", "gemma2"): "ovis1.6",
    ("siglip_vision_model", "llama"): "ovis1.6",
}
