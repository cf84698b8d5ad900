"""Reads a checkpoint's JSON files into what the engine needs to know; no code from a checkpoint ever runs.

Two layouts are read: the original one, whose model type ``ovis`` transformers does not know, and the converted one
(`ovis_engine.converted`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ovis_engine.errors import CheckpointError, UnsupportedModelError
from ovis_engine.families import FAMILIES, Family, LanguageModel, Tower
from ovis_engine.fields import Fields, in_short, read_json

#: How files and tensors are named: as AIDC-AI published them, or as transformers' own Ovis2 class does.
Layout = Literal["original", "converted"]

#: Kinds of attention layer that a language model may name.
LAYER_TYPES = ("full_attention", "sliding_attention")
#: Most blocks of a tower or layers of a language model; each is an object before anything can be checked.
MAX_LAYERS = 1024
#: Fields by which a checkpoint says how it was run when it was saved; the engine has an attention of its own.
ATTENTION_WISHES = frozenset({"_attn_implementation", "attn_implementation", "_attn_implementation_internal"})

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
        CheckpointError: If a file is missing or malformed, or a needed field is missing, of the wrong kind or out of
            range; it names both.
        UnsupportedModelError: If the checkpoint is of a family that the engine does not serve.
    """
    config = read_json(directory / "config.json")
    layout: Layout = "converted" if config.get("model_type") == "ovis2" else "original"
    if layout == "converted":
        # Imported late: it needs transformers' configuration classes.
        from ovis_engine.converted import as_original

        try:
            config = as_original(config)
        except Exception as exc:
            raise CheckpointError(f"is not usable ({in_short(exc)})", file="config.json") from exc
    generation_file = directory / "generation_config.json"
    generation = read_json(generation_file) if generation_file.exists() else {}
    return _parse(
        Fields(config, "config.json"), _read_preprocessor(directory), Fields(generation, generation_file.name), layout
    )


def _read_preprocessor(directory: Path) -> Fields:
    """How pictures are normalised: a file of its own, or a part of ``processor_config.json`` in newer saves."""
    file = directory / "preprocessor_config.json"
    whole = directory / "processor_config.json"
    if file.exists() or not whole.exists():
        return Fields(read_json(file), file.name)
    return Fields(read_json(whole), whole.name).part("image_processor")


def _parse(config: Fields, preprocessor: Fields, generation: Fields, layout: Layout) -> OvisConfig:
    text, visual = config.part("llm_config"), config.part("visual_tokenizer_config")
    tower, language_model, family = _members(visual, text)
    _check_text(text)
    red, green, blue = preprocessor.numbers("image_mean", 3)
    deviations = preprocessor.numbers("image_std", 3, positive=True)
    return OvisConfig(
        layout=layout,
        family=family,
        language_model=language_model,
        vision=_parse_vision(tower, visual),
        text={name: value for name, value in text.content.items() if name not in ATTENTION_WISHES},
        hidden_size=text.size("hidden_size"),
        image_mean=(red, green, blue),
        image_std=(deviations[0], deviations[1], deviations[2]),
        max_context_tokens=min(config.size("multimodal_max_length"), text.size("max_position_embeddings")),
        eos_token_ids=_end_tokens(generation if "eos_token_id" in generation or "eos_token_id" not in text else text),
    )


def _members(visual: Fields, text: Fields) -> tuple[Tower, LanguageModel, Family]:
    backbone = visual.part("backbone_config")
    found = (backbone.word("model_type"), text.word("model_type"))
    members = next((members for members in FAMILIES if members == found), None)
    if members is None:
        served = ", ".join(f"{tower} with {language_model}" for tower, language_model in FAMILIES)
        raise UnsupportedModelError(
            f"{found[0]} with {found[1]} is not supported (supported: {served})", file="config.json"
        )
    tower, language_model = members
    fixed = [(visual, "tokenize_function", "softmax")]
    if tower == "siglip_vision_model":
        fixed.append((backbone, "hidden_act", "gelu_pytorch_tanh"))
    for owner, name, wanted in fixed:
        if owner.word(name) != wanted:
            raise UnsupportedModelError(
                f"{name} {owner.word(name)} is not supported (only {wanted})", file="config.json"
            )
    return tower, language_model, FAMILIES[members]


def _check_text(text: Fields) -> None:
    """Checks what transformers' configuration classes take as it comes, and its models trip over later."""
    layers = text.size("num_hidden_layers", most=MAX_LAYERS)
    heads = text.size("num_attention_heads")
    for name in ("intermediate_size", "vocab_size"):
        text.size(name)
    for name in ("head_dim", "sliding_window"):
        if name in text:
            text.size(name)
    if "num_key_value_heads" in text and heads % text.size("num_key_value_heads"):
        raise text.fault("num_key_value_heads", f"a divisor of the {heads} heads", text.size("num_key_value_heads"))
    for name in ("rms_norm_eps", "rope_theta"):
        if name in text:
            text.positive(name)
    types = text.content.get("layer_types")
    known = isinstance(types, list) and len(types) == layers and all(kind in LAYER_TYPES for kind in types)
    if types is not None and not known:
        raise text.fault("layer_types", f"{layers} of {', '.join(LAYER_TYPES)}", types)


def _end_tokens(owner: Fields) -> tuple[int, ...]:
    value = owner.content.get("eos_token_id")
    token_ids = value if isinstance(value, list) else [value]
    if not token_ids or not all(type(token_id) is int and token_id >= 0 for token_id in token_ids):
        raise owner.fault("eos_token_id", "a token id or several", value)
    return tuple(token_ids)


def _parse_vision(tower: Tower, visual: Fields) -> VisionConfig:
    backbone = visual.part("backbone_config")
    siglip = tower == "siglip_vision_model"
    width, heads = backbone.size("hidden_size"), backbone.size("num_attention_heads")
    if width % heads:
        raise backbone.fault("num_attention_heads", f"a divisor of the width, {width}", heads)
    image_size = backbone.size("image_size")
    return VisionConfig(
        tower=tower,
        hidden_size=width,
        intermediate_size=backbone.size("intermediate_size"),
        num_layers=backbone.size("num_hidden_layers", most=MAX_LAYERS),
        num_heads=heads,
        image_size=image_size,
        patch_size=backbone.size("patch_size", most=image_size),
        norm_eps=backbone.positive("layer_norm_eps" if siglip else "rms_norm_eps"),
        qkv_bias=siglip or bool(backbone.content.get("qkv_bias", False)),
        use_bias=siglip or bool(backbone.content.get("use_bias", False)),
        hidden_stride=visual.size("hidden_stride"),
        visual_vocab_size=visual.size("vocab_size", least=NUM_INDICATORS + 1),
    )
