"""Reads a checkpoint's JSON files into what the engine needs to know; no code from a checkpoint ever runs.

Two layouts are read: the original one, whose model type ``ovis`` transformers does not know, and the converted one
(`ovis_engine.converted`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ovis_engine.errors import CheckpointError, UnsupportedModelError
from ovis_engine.families import FAMILIES, Family, LanguageModel, Tower

#: How files and tensors are named: as AIDC-AI published them, or as transformers' own Ovis2 class does.
Layout = Literal["original", "converted"]

#: Rows at the end of the visual embedding table that hold the indicator tokens.
NUM_INDICATORS = 5

Json = dict[str, Any]


@dataclass(frozen=True)
class VisionConfig:
    """Shape of the vision tower and visual head.

    Attributes:
        tower: Which tower it is.
        hidden_size: Width of the tower.
        intermediate_size: Width of its feed-forward layers.
        num_layers: Transformer blocks.
        num_heads: Attention heads.
        image_size: Side of a tile in pixels.
        patch_size: Side of a patch in pixels.
        norm_eps: Epsilon of the tower's norms.
        qkv_bias: Whether the attention input projection has a bias (SigLIP always has).
        use_bias: Whether the other projections have one (SigLIP always has).
        hidden_stride: Neighbouring patches per direction that are merged into one visual token.
        visual_vocab_size: Rows of the visual embedding table, indicators included.
    """

    tower: Tower
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    image_size: int
    patch_size: int
    norm_eps: float
    qkv_bias: bool
    use_bias: bool
    hidden_stride: int
    visual_vocab_size: int

    @property
    def patches_per_side(self) -> int:
        """Patches along one side of a tile."""
        return self.image_size // self.patch_size

    @property
    def tokens_per_tile(self) -> int:
        """Visual tokens of one tile."""
        return (-(-self.patches_per_side // self.hidden_stride)) ** 2


@dataclass(frozen=True)
class OvisConfig:
    """All that a checkpoint's JSON files say and the engine uses.

    Attributes:
        layout: How the weights are named.
        family: Which generation of Ovis it is.
        language_model: Which language model, and with it which chat format.
        vision: Shape of the vision tower and visual head.
        text: The language model's configuration as stored, for ``AutoConfig``.
        hidden_size: Width of the language model and of the visual embedding table.
        image_mean: Per-channel mean of the normalisation, on the 0..1 scale.
        image_std: Per-channel standard deviation of the normalisation.
        max_context_tokens: Most positions of one sequence, prompt and output together.
        eos_token_ids: Token ids that end a sequence.
    """

    layout: Layout
    family: Family
    language_model: LanguageModel
    vision: VisionConfig
    text: Json
    hidden_size: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    max_context_tokens: int
    eos_token_ids: tuple[int, ...]


def read_config(directory: Path) -> OvisConfig:
    """Reads ``config.json``, ``preprocessor_config.json`` and, if present, ``generation_config.json``.

    Raises:
        CheckpointError: If a file is missing or malformed, or a needed field is missing or of the wrong kind.
        UnsupportedModelError: If the checkpoint is of a family that the engine does not serve.
    """
    config = _read_json(directory / "config.json")
    layout: Layout = "converted" if config.get("model_type") == "ovis2" else "original"
    try:
        if layout == "converted":
            # Imported late: it needs transformers' configuration classes.
            from ovis_engine.converted import as_original

            config = as_original(config)
        generation_file = directory / "generation_config.json"
        generation = _read_json(generation_file) if generation_file.exists() else {}
        return _parse(config, _read_preprocessor(directory), generation, layout)
    except (KeyError, TypeError, ValueError) as exc:
        raise CheckpointError(f"missing or malformed field {exc}", file="config.json") from exc


def _read_json(file: Path) -> Json:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise CheckpointError(f"cannot be read ({exc.strerror})", file=file.name) from exc
    except ValueError as exc:
        raise CheckpointError("is not JSON", file=file.name) from exc
    if not isinstance(content, dict):
        raise CheckpointError("is not a JSON object", file=file.name)
    return content


def _read_preprocessor(directory: Path) -> Json:
    """How pictures are normalised: a file of its own, or a part of ``processor_config.json`` in newer saves."""
    file = directory / "preprocessor_config.json"
    whole = directory / "processor_config.json"
    if file.exists() or not whole.exists():
        return _read_json(file)
    preprocessor = _read_json(whole).get("image_processor")
    if not isinstance(preprocessor, dict):
        raise CheckpointError("has no image_processor", file=whole.name)
    return preprocessor


def _parse(config: Json, preprocessor: Json, generation: Json, layout: Layout) -> OvisConfig:
    text, visual = config["llm_config"], config["visual_tokenizer_config"]
    tower, language_model, family = _members(visual, text)
    eos = generation.get("eos_token_id", text.get("eos_token_id"))
    if eos is None:
        raise CheckpointError("no eos_token_id", file="generation_config.json")
    return OvisConfig(
        layout=layout,
        family=family,
        language_model=language_model,
        vision=_parse_vision(tower, visual),
        text=dict(text),
        hidden_size=int(text["hidden_size"]),
        image_mean=_three_floats(preprocessor["image_mean"]),
        image_std=_three_floats(preprocessor["image_std"]),
        max_context_tokens=min(int(config["multimodal_max_length"]), int(text["max_position_embeddings"])),
        eos_token_ids=tuple(int(token) for token in (eos if isinstance(eos, list) else [eos])),
    )


def _members(visual: Json, text: Json) -> tuple[Tower, LanguageModel, Family]:
    found = (visual["backbone_config"]["model_type"], text["model_type"])
    members = next((members for members in FAMILIES if members == found), None)
    if members is None:
        served = ", ".join(f"{tower} with {language_model}" for tower, language_model in FAMILIES)
        raise UnsupportedModelError(
            f"{found[0]} with {found[1]} is not supported (supported: {served})", file="config.json"
        )
    tower, language_model = members
    fixed: list[tuple[Mapping[str, Any], str, object]] = [(visual, "tokenize_function", "softmax")]
    if tower == "siglip_vision_model":
        fixed.append((visual["backbone_config"], "hidden_act", "gelu_pytorch_tanh"))
    for owner, name, wanted in fixed:
        if owner[name] != wanted:
            raise UnsupportedModelError(f"{name} {owner[name]} is not supported (only {wanted})", file="config.json")
    return tower, language_model, FAMILIES[members]


def _parse_vision(tower: Tower, visual: Json) -> VisionConfig:
    backbone = visual["backbone_config"]
    siglip = tower == "siglip_vision_model"
    return VisionConfig(
        tower=tower,
        hidden_size=int(backbone["hidden_size"]),
        intermediate_size=int(backbone["intermediate_size"]),
        num_layers=int(backbone["num_hidden_layers"]),
        num_heads=int(backbone["num_attention_heads"]),
        image_size=int(backbone["image_size"]),
        patch_size=int(backbone["patch_size"]),
        norm_eps=float(backbone["layer_norm_eps" if siglip else "rms_norm_eps"]),
        qkv_bias=siglip or bool(backbone.get("qkv_bias", False)),
        use_bias=siglip or bool(backbone.get("use_bias", False)),
        hidden_stride=int(visual["hidden_stride"]),
        visual_vocab_size=int(visual["vocab_size"]),
    )


def _three_floats(values: list[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
