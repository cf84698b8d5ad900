"""The real configurations of the eight models, as far as their shapes go, and the same scaled down.

From the published configs of Qwen2.5, Gemma 2, Llama 3.2, AIMv2 and SigLIP.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def _qwen(hidden: int, inner: int, layers: int, heads: int, key_heads: int, vocabulary: int, *, tied: bool) -> Json:
    return {
        "model_type": "qwen2",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "use_sliding_window": False,
        "eos_token_id": 151645,
    }


def _aimv2(hidden: int, inner: int, heads: int) -> Json:
    return {
        "model_type": "aimv2",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": 24,
        "num_attention_heads": heads,
        "image_size": 448,
        "patch_size": 14,
        "rms_norm_eps": 1e-5,
        "qkv_bias": False,
        "use_bias": False,
    }


SIGLIP: Json = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu_pytorch_tanh",
}
GEMMA2_9B: Json = {
    "model_type": "gemma2",
    "hidden_size": 3584,
    "intermediate_size": 14336,
    "num_hidden_layers": 42,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
    "vocab_size": 256000,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "sliding_window": 4096,
    "hidden_activation": "gelu_pytorch_tanh",
    "eos_token_id": 1,
    "pad_token_id": 0,
}
LLAMA32_3B: Json = {
    "model_type": "llama",
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "eos_token_id": [128001, 128008, 128009],
}
LARGE, HUGE, BILLION = _aimv2(1024, 2816, 8), _aimv2(1536, 4096, 12), _aimv2(2048, 5632, 16)

#: Catalogue name -> (tower, language model, context).
MEMBERS: dict[str, tuple[Json, Json, int]] = {
    "ovis2-1b": (LARGE, _qwen(896, 4864, 24, 14, 2, 151936, tied=True), 32768),
    "ovis2-2b": (LARGE, _qwen(1536, 8960, 28, 12, 2, 151936, tied=True), 32768),
    "ovis2-4b": (HUGE, _qwen(2048, 11008, 36, 16, 2, 151936, tied=True), 32768),
    "ovis2-8b": (HUGE, _qwen(3584, 18944, 28, 28, 4, 152064, tied=False), 32768),
    "ovis2-16b": (HUGE, _qwen(5120, 13824, 48, 40, 8, 152064, tied=False), 32768),
    "ovis2-34b": (BILLION, _qwen(5120, 27648, 64, 40, 8, 152064, tied=False), 32768),
    "ovis1.6-gemma2-9b": (SIGLIP, GEMMA2_9B, 8192),
    "ovis1.6-llama3.2-3b": (SIGLIP, LLAMA32_3B, 8192),
}


def real_config(name: str) -> Json:
    """The original ``config.json`` of a catalogue entry."""
    return _ovis(*MEMBERS[name], visual_vocabulary=65536)


def tiny_config(name: str, *, vocabulary: int) -> Json:
    """The same with heads of 8, two layers (four if they alternate) and small vocabularies; ratios are kept."""
    tower, text, context = MEMBERS[name]
    head_dim = text.get("head_dim", text["hidden_size"] // text["num_attention_heads"])
    small_text = _scaled(text, head_dim) | {"vocab_size": vocabulary}
    small_text["num_hidden_layers"] = 4 if "sliding_window" in text else 2
    if "head_dim" in text:
        small_text["head_dim"] = 8
    if "sliding_window" in text:
        small_text |= {"sliding_window": 64, "query_pre_attn_scalar": 8}
    small_tower = _scaled(tower, tower["hidden_size"] // tower["num_attention_heads"]) | {"num_hidden_layers": 2}
    return _ovis(small_tower, small_text, context, visual_vocabulary=512)


def _scaled(config: Json, head_dim: int) -> Json:
    scaled = {name: config[name] * 8 // head_dim for name in ("hidden_size", "intermediate_size")}
    return config | scaled


def _ovis(tower: Json, text: Json, context: int, *, visual_vocabulary: int) -> Json:
    return {
        "model_type": "ovis",
        "hidden_size": text["hidden_size"],
        "multimodal_max_length": context,
        "llm_config": text,
        "visual_tokenizer_config": {
            "vocab_size": visual_vocabulary,
            "hidden_stride": 2,
            "tokenize_function": "softmax",
            "backbone_config": tower,
        },
    }
