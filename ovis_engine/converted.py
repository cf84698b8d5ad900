"""Checkpoints in transformers' own Ovis2 layout (``thisisiron/Ovis2-*-hf``): the same weights under other names.

Only names and configuration fields are read in that form. Pictures are still tiled, encoded and laid out as the
reference does it; transformers' own class and processor are not used, because they differ in ways that change results.
"""

from __future__ import annotations

from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

#: Positions of the reference's context; the converted layout does not carry them.
CONTEXT_TOKENS = 32768


def as_original(config: dict[str, Any]) -> dict[str, Any]:
    """Turns a converted ``config.json`` into the fields of an original one.

    Fields that equal transformers' defaults may be missing from the file, so its configuration class fills them in.

    Raises:
        KeyError: If a field is missing.
        TypeError: If a field is of the wrong kind.
        ValueError: As TypeError.
    """
    whole = CONFIG_MAPPING["ovis2"].from_dict(config)
    text, vision = whole.text_config.to_dict(), whole.vision_config.to_dict()
    # Older saves leave the outer flag at its default, True, and newer ones the inner: untied is what somebody set.
    text["tie_word_embeddings"] = whole.tie_word_embeddings and text["tie_word_embeddings"]
    backbone = vision | {"model_type": "aimv2", "use_bias": vision["mlp_bias"]}
    return {
        "llm_config": text,
        "visual_tokenizer_config": {
            "backbone_config": backbone,
            "hidden_stride": vision["hidden_stride"],
            "tokenize_function": vision["tokenize_function"],
            "vocab_size": vision["vocab_size"],
        },
        "multimodal_max_length": CONTEXT_TOKENS,
    }
