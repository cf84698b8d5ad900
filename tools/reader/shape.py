"""The model's shape, as the JSON files of a checkpoint in the original Ovis2 layout say it."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ovis_engine.bundled import bundled_model_path
from ovis_engine.checkpoint import OvisModel, empty_model
from ovis_engine.config import NUM_INDICATORS, read_config
from tools.reader.layout import PATCH, SIDE
from tools.reader.vocabulary import NUM_WORDS

#: Files that every reader shares: the tokenizer (bytes, no merges) and how pictures are normalised.
SHARED_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
)
#: Ids of the tokenizer's special tokens.
END_OF_TEXT, END_OF_TURN = 256, 258
VOCAB_SIZE = 259
#: Positions of one sequence, as `contract.catalogue` has it; five tiles and what stands on them fit.
MAX_CONTEXT = 4096

TOWER_WIDTH, TOWER_LAYERS = 192, 6
TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS = 160, 4, 5


def config_json() -> dict[str, Any]:
    """The contents of config.json."""
    return {
        "model_type": "ovis",
        "architectures": ["Ovis"],
        "conversation_formatter_class": "QwenConversationFormatter",
        "disable_tie_weight": False,
        "hidden_size": TEXT_WIDTH,
        "multimodal_max_length": MAX_CONTEXT,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.46.2",
        "llm_attn_implementation": "sdpa",
        "llm_config": _language_model_json(),
        "visual_tokenizer_config": {
            "model_type": "aimv2_visual_tokenizer",
            "architectures": ["Aimv2VisualTokenizer"],
            "vocab_size": NUM_WORDS + NUM_INDICATORS,
            "hidden_stride": 1,
            "tokenize_function": "softmax",
            "tau": 1.0,
            "depths": None,
            "drop_cls_token": False,
            "backbone_kwargs": {},
            "backbone_config": _tower_json(),
        },
    }


def generation_json() -> dict[str, Any]:
    """The contents of generation_config.json."""
    return {
        "do_sample": False,
        "bos_token_id": END_OF_TEXT,
        "eos_token_id": [END_OF_TURN, END_OF_TEXT],
        "pad_token_id": END_OF_TEXT,
        "max_new_tokens": 1024,
        "multimodal_max_length": MAX_CONTEXT,
        "transformers_version": "4.46.2",
    }


def write_json_files(directory: Path) -> None:
    """Writes all of a checkpoint but its weights; what readers share comes from the bundled one."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in (("config.json", config_json()), ("generation_config.json", generation_json())):
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name in SHARED_FILES:
        (directory / name).write_bytes((bundled_model_path() / name).read_bytes())


def build_model() -> OvisModel:
    """The engine's own modules in float32 on the CPU, to be trained; their weights are not set yet."""
    with TemporaryDirectory() as folder:
        write_json_files(Path(folder))
        config = read_config(Path(folder))
    model = empty_model(config, torch.float32).to_empty(device="cpu")
    # No checkpoint stores the rotary tables, and to_empty left them undefined.
    language_model = model.language_model
    language_model.model.rotary_emb = type(language_model.model.rotary_emb)(language_model.config)
    return model


def _language_model_json() -> dict[str, Any]:
    return {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 384,
        "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": TEXT_HEADS,
        "num_key_value_heads": TEXT_HEADS,
        "vocab_size": VOCAB_SIZE,
        "hidden_act": "silu",
        "max_position_embeddings": MAX_CONTEXT,
        "max_window_layers": TEXT_LAYERS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "sliding_window": None,
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "use_cache": True,
        "bos_token_id": END_OF_TEXT,
        "eos_token_id": END_OF_TURN,
        "torch_dtype": "bfloat16",
    }


def _tower_json() -> dict[str, Any]:
    return {
        "model_type": "aimv2",
        "architectures": ["AIMv2Model"],
        "hidden_size": TOWER_WIDTH,
        "intermediate_size": 3 * TOWER_WIDTH,
        "num_hidden_layers": TOWER_LAYERS,
        "num_attention_heads": 8,
        "num_channels": 3,
        "image_size": SIDE,
        "patch_size": PATCH,
        "rms_norm_eps": 1e-5,
        "attention_dropout": 0.0,
        "projection_dropout": 0.0,
        "qkv_bias": False,
        "use_bias": False,
    }
