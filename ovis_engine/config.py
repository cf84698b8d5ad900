"""Reads the JSON files of an original Ovis checkpoint into what the engine needs to know.

transformers does not know model type ``ovis``, so ``config.json`` is read here; no code from a checkpoint ever runs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ovis_engine.errors import CheckpointError, UnsupportedModelError

Family = Literal["ovis2"]

#: (visual backbone, language model) that each family is made of, by their ``model_type``.
FAMILIES: dict[tuple[str, str], Family] = {("aimv2", "qwen2"): "ovis2"}

#: Rows at the end of the visual embedding table that hold the indicator tokens.
NUM_INDICATORS = 5


@dataclass(frozen=True)
class VisionConfig:
    """Shape of the vision tower and visual head.

    Attributes:
        hidden_size: Width of the tower.
        intermediate_size: Width of its feed-forward layers.
        num_layers: Transformer blocks.
        num_heads: Attention heads.
        image_size: Side of a tile in pixels.
        patch_size: Side of a patch in pixels.
        rms_norm_eps: Epsilon of the tower's norms.
        qkv_bias: Whether the attention input projection has a bias.
        use_bias: Whether the other projections have one.
        hidden_stride: Neighbouring patches per direction that are merged into one visual token.
        visual_vocab_size: Rows of the visual embedding table, indicators included.
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    image_size: int
    patch_size: int
    rms_norm_eps: float
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
    """All that an original checkpoint's JSON files say and the engine uses.

    Attributes:
        family: Which prompt format and tower the checkpoint wants.
        vision: Shape of the vision tower and visual head.
        text: The language model's configuration as stored, for ``AutoConfig``.
        hidden_size: Width of the language model and of the visual embedding table.
        image_mean: Per-channel mean of the normalisation, on the 0..1 scale.
        image_std: Per-channel standard deviation of the normalisation.
        max_context_tokens: Most positions of one sequence, prompt and output together.
        eos_token_ids: Token ids that end a sequence.
    """

    family: Family
    vision: VisionConfig
    text: dict[str, Any]
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
    preprocessor = _read_json(directory / "preprocessor_config.json")
    generation_file = directory / "generation_config.json"
    generation = _read_json(generation_file) if generation_file.exists() else {}
    try:
        return _parse(config, preprocessor, generation)
    except (KeyError, TypeError, ValueError) as exc:
        raise CheckpointError(f"missing or malformed field {exc}", file="config.json") from exc


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise CheckpointError(f"cannot be read ({exc.strerror})", file=file.name) from exc
    except ValueError as exc:
        raise CheckpointError("is not JSON", file=file.name) from exc
    if not isinstance(content, dict):
        raise CheckpointError("is not a JSON object", file=file.name)
    return content


def _parse(config: dict[str, Any], preprocessor: dict[str, Any], generation: dict[str, Any]) -> OvisConfig:
    text, visual = config["llm_config"], config["visual_tokenizer_config"]
    family = _family(visual, text)
    eos = generation.get("eos_token_id", text.get("eos_token_id"))
    if eos is None:
        raise CheckpointError("no eos_token_id", file="generation_config.json")
    vision = _parse_vision(visual)
    context = min(int(config["multimodal_max_length"]), int(text["max_position_embeddings"]))
    return OvisConfig(
        family=family,
        vision=vision,
        text=dict(text),
        hidden_size=int(text["hidden_size"]),
        image_mean=_three_floats(preprocessor["image_mean"]),
        image_std=_three_floats(preprocessor["image_std"]),
        max_context_tokens=context,
        eos_token_ids=tuple(int(token) for token in (eos if isinstance(eos, list) else [eos])),
    )


def _family(visual: dict[str, Any], text: dict[str, Any]) -> Family:
    backbone, language_model = visual["backbone_config"]["model_type"], text["model_type"]
    family = FAMILIES.get((backbone, language_model))
    if family is None:
        served = ", ".join(f"{tower} with {language}" for tower, language in FAMILIES)
        raise UnsupportedModelError(
            f"{backbone} with {language_model} is not supported yet (supported: {served})", file="config.json"
        )
    if visual["tokenize_function"] != "softmax":
        raise UnsupportedModelError(
            f"tokenize_function {visual['tokenize_function']} is not supported (only softmax)", file="config.json"
        )
    return family


def _parse_vision(visual: dict[str, Any]) -> VisionConfig:
    backbone = visual["backbone_config"]
    return VisionConfig(
        hidden_size=int(backbone["hidden_size"]),
        intermediate_size=int(backbone["intermediate_size"]),
        num_layers=int(backbone["num_hidden_layers"]),
        num_heads=int(backbone["num_attention_heads"]),
        image_size=int(backbone["image_size"]),
        patch_size=int(backbone["patch_size"]),
        rms_norm_eps=float(backbone["rms_norm_eps"]),
        qkv_bias=bool(backbone.get("qkv_bias", False)),
        use_bias=bool(backbone.get("use_bias", False)),
        hidden_stride=int(visual["hidden_stride"]),
        visual_vocab_size=int(visual["vocab_size"]),
    )


def _three_floats(values: list[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
