"""The benchmark's model, pictures and prompts, made from ``workload.json`` alone.

The model is random: what it says is nonsense, but it costs what a trained one costs. It is written as a checkpoint in
the original layout, so that every contestant reads the same files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer

WORKLOAD_FILE = Path(__file__).with_name("workload.json")

#: Its tokenizer and configuration are the base of the benchmark model's.
TINY = Path(__file__).parents[1] / "parity" / "models" / "ovis2-tiny"

#: The token that vLLM wants in the vocabulary as a stand-in for visual tokens; ours needs none.
IMAGE_PAD = "<|image_pad|>"

#: Standard deviation of the random weights.
WEIGHT_STD = 0.05


@dataclass(frozen=True)
class BenchRequest:
    """One request: a picture, a question and a fixed number of tokens to generate."""

    picture: Image.Image
    prompt: str
    output_tokens: int


@dataclass(frozen=True)
class Workload:
    """What ``workload.json`` says."""

    content: dict[str, Any]

    @classmethod
    def read(cls) -> Workload:
        """Reads the file beside this module."""
        return cls(json.loads(WORKLOAD_FILE.read_text(encoding="utf-8")))

    @property
    def dtype(self) -> str:
        """Dtype of every contestant, a name of torch's."""
        return str(self.content["dtype"])

    @property
    def num_output_tokens(self) -> int:
        """Tokens that one run of the whole workload generates."""
        return sum(self._output_tokens(index) for index in range(self.content["num_requests"]))

    def requests(self, series: int) -> list[BenchRequest]:
        """The workload's requests; every series has pictures of its own, so that no cache carries over."""
        prompts = self.content["prompts"]
        return [
            BenchRequest(self.picture(series, index), prompts[index % len(prompts)], self._output_tokens(index))
            for index in range(self.content["num_requests"])
        ]

    def picture(self, series: int, index: int) -> Image.Image:
        """A picture of soft random colours that no other series or index has."""
        side = self.content["picture_side"]
        noise = np.random.default_rng((self.content["seed"], series, index)).integers(0, 256, (28, 28, 3), np.uint8)
        return Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)

    def long_prompt(self, tokenizer: Tokenizer, series: int) -> str:
        """Random words that make about as many tokens as the latency section says; no two series share a prefix."""
        words = " ".join(self.content["prompts"]).split()
        random = np.random.default_rng((self.content["seed"], series))
        wanted, text = self.content["latency"]["long_prompt_tokens"], f"{series}"
        while len(tokenizer.encode(text).ids) < wanted:
            text += " " + " ".join(random.choice(words, 20))
        return text

    def _output_tokens(self, index: int) -> int:
        is_long = index in self.content["long_requests"]
        return int(self.content["long_output_tokens" if is_long else "short_output_tokens"])


def write_checkpoint(workload: Workload, directory: Path) -> int:
    """Writes the model; returns its number of parameters."""
    directory.mkdir(parents=True, exist_ok=True)
    config = _config(workload)
    weights = dict(_weights(config, torch.Generator().manual_seed(workload.content["seed"])))
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    _write_json(directory / "config.json", config)
    for name in ("preprocessor_config.json", "vocab.json", "merges.txt"):
        shutil.copy(TINY / name, directory / name)
    _write_tokenizer(directory, config["llm_config"]["vocab_size"])
    _write_json(directory / "generation_config.json", {"eos_token_id": config["llm_config"]["eos_token_id"]})
    return sum(tensor.numel() for name, tensor in weights.items() if name != "llm.lm_head.weight")


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _write_tokenizer(directory: Path, vocab_size: int) -> None:
    """The tiny tokenizer with the image pad, and with a word for each further id so that every output has text."""
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(IMAGE_PAD, special=True)])
    content = json.loads(tokenizer.to_str())
    content["model"]["vocab"] |= {f"\u0120w{index}": index for index in range(tokenizer.get_vocab_size(), vocab_size)}
    _write_json(directory / "tokenizer.json", content)
    settings = json.loads((TINY / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["added_tokens_decoder"][str(tokenizer.token_to_id(IMAGE_PAD))] = {"content": IMAGE_PAD, "special": True}
    _write_json(directory / "tokenizer_config.json", settings)


def _config(workload: Workload) -> dict[str, Any]:
    """The original layout's ``config.json``, based on the tiny parity model's."""
    config: dict[str, Any] = json.loads((TINY / "config.json").read_text(encoding="utf-8"))
    text, vision = workload.content["model"]["text"], dict(workload.content["model"]["vision"])
    config["llm_config"] |= text | {"max_window_layers": text["num_hidden_layers"]}
    config["visual_tokenizer_config"]["vocab_size"] = vision.pop("visual_vocab_size")
    config["visual_tokenizer_config"]["backbone_config"] |= vision
    config["hidden_size"] = text["hidden_size"]
    config["torch_dtype"] = config["llm_config"]["torch_dtype"] = workload.dtype
    return config


def _weights(config: dict[str, Any], random: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    """Every stored tensor; norms are one, biases zero, the rest is normal. The head is tied and stored twice."""
    head = None
    for name, shape in _shapes(config):
        if "norm" in name or name == "visual_tokenizer.head.1.weight":
            yield name, torch.ones(shape)
        elif name.endswith("bias"):
            yield name, torch.zeros(shape)
        elif name == "llm.lm_head.weight":
            assert head is not None
            yield name, head.clone()
        else:
            value = torch.randn(shape, generator=random) * WEIGHT_STD
            if name == "llm.model.embed_tokens.weight":
                head = value
            yield name, value


def _shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the original layout."""
    visual = config["visual_tokenizer_config"]
    tower = visual["backbone_config"]
    words, merged = visual["vocab_size"] - 5, tower["hidden_size"] * visual["hidden_stride"] ** 2
    yield from _text_shapes(config["llm_config"])
    yield from _tower_shapes(tower)
    yield "visual_tokenizer.head.0.weight", (words, merged)
    yield "visual_tokenizer.head.1.weight", (words,)
    yield "visual_tokenizer.head.1.bias", (words,)
    yield "vte.weight", (visual["vocab_size"], config["hidden_size"])


def _text_shapes(text: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner, vocabulary = text["hidden_size"], text["intermediate_size"], text["vocab_size"]
    key_width = width // text["num_attention_heads"] * text["num_key_value_heads"]
    yield "llm.model.embed_tokens.weight", (vocabulary, width)
    for layer in range(text["num_hidden_layers"]):
        prefix = f"llm.model.layers.{layer}"
        for name, rows in (("q", width), ("k", key_width), ("v", key_width)):
            yield f"{prefix}.self_attn.{name}_proj.weight", (rows, width)
            yield f"{prefix}.self_attn.{name}_proj.bias", (rows,)
        yield f"{prefix}.self_attn.o_proj.weight", (width, width)
        yield f"{prefix}.mlp.gate_proj.weight", (inner, width)
        yield f"{prefix}.mlp.up_proj.weight", (inner, width)
        yield f"{prefix}.mlp.down_proj.weight", (width, inner)
        yield f"{prefix}.input_layernorm.weight", (width,)
        yield f"{prefix}.post_attention_layernorm.weight", (width,)
    yield "llm.model.norm.weight", (width,)
    yield "llm.lm_head.weight", (vocabulary, width)


def _tower_shapes(tower: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner, patch = tower["hidden_size"], tower["intermediate_size"], tower["patch_size"]
    backbone = "visual_tokenizer.backbone"
    yield f"{backbone}.preprocessor.patchifier.proj.weight", (width, 3, patch, patch)
    yield f"{backbone}.preprocessor.patchifier.proj.bias", (width,)
    yield f"{backbone}.preprocessor.patchifier.norm.weight", (width,)
    yield f"{backbone}.preprocessor.pos_embed", (1, (tower["image_size"] // patch) ** 2, width)
    for layer in range(tower["num_hidden_layers"]):
        prefix = f"{backbone}.trunk.blocks.{layer}"
        yield f"{prefix}.norm_1.weight", (width,)
        yield f"{prefix}.norm_2.weight", (width,)
        yield f"{prefix}.attn.qkv.weight", (3 * width, width)
        yield f"{prefix}.attn.proj.weight", (width, width)
        yield f"{prefix}.mlp.fc1.weight", (inner, width)
        yield f"{prefix}.mlp.fc2.weight", (width, inner)
        yield f"{prefix}.mlp.fc3.weight", (inner, width)
    yield f"{backbone}.trunk.post_trunk_norm.weight", (width,)
