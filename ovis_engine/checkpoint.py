"""Loads an original-format Ovis checkpoint: safetensors, one file or shards, streamed tensor by tensor.

The model is built without memory (meta device); each stored tensor is renamed by anchored rules, checked against the
place it belongs to and copied to the device. Nothing but safetensors is ever read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ovis_engine.config import OvisConfig, read_config
from ovis_engine.errors import CheckpointError
from ovis_engine.vision import VisualEncoder

_BACKBONE = r"^visual_tokenizer\.backbone\."
_PLACES = r"(weight|bias)$"

#: (stored name, our name); the first that matches wins. An empty name drops the tensor.
RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), place)
    for pattern, place in (
        (r"^llm\.(model\..+|lm_head\.weight)$", r"language_model.\1"),
        (r"^vte\.weight$", r"encoder.table"),
        (r"^visual_tokenizer\.head\.0\.weight$", r"encoder.head_linear.weight"),
        (rf"^visual_tokenizer\.head\.1\.{_PLACES}", r"encoder.head_norm.\1"),
        (rf"{_BACKBONE}preprocessor\.patchifier\.proj\.{_PLACES}", r"encoder.tower.patch_proj.\1"),
        (rf"{_BACKBONE}preprocessor\.patchifier\.norm\.weight$", r"encoder.tower.patch_norm.weight"),
        (rf"{_BACKBONE}preprocessor\.pos_embed$", r"encoder.tower.position"),
        (rf"{_BACKBONE}trunk\.blocks\.(\d+)\.(norm_[12])\.weight$", r"encoder.tower.blocks.\1.\2.weight"),
        (rf"{_BACKBONE}trunk\.blocks\.(\d+)\.attn\.(qkv|proj)\.{_PLACES}", r"encoder.tower.blocks.\1.\2.\3"),
        (rf"{_BACKBONE}trunk\.blocks\.(\d+)\.mlp\.(fc[123])\.{_PLACES}", r"encoder.tower.blocks.\1.\2.\3"),
        # Ovis reads the tower before its final norm.
        (rf"{_BACKBONE}trunk\.post_trunk_norm\.weight$", ""),
    )
)


class OvisModel(nn.Module):
    """The two halves of an Ovis model; the engine wires them together."""

    def __init__(self, config: OvisConfig, language_model: PreTrainedModel) -> None:
        super().__init__()
        self.config = config
        self.encoder = VisualEncoder(config)
        self.language_model = language_model


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as stored: the file it is in, its stored name and its value on the CPU."""

    file: str
    name: str
    value: Tensor


def load_model(directory: Path, *, device: torch.device, dtype: torch.dtype) -> OvisModel:
    """Loads a checkpoint in the original layout.

    Args:
        directory: Holds config.json, the tokenizer and safetensors.
        device: Where the parameters go.
        dtype: What they are cast to.

    Returns:
        The model in evaluation mode, without gradients.

    Raises:
        CheckpointError: If a file or tensor is missing, unexpected, misshaped or truncated.
        UnsupportedModelError: If the family is not served.
    """
    config = read_config(directory)
    with torch.device("meta"):
        model = OvisModel(config, _empty_language_model(config, dtype))
    tied = bool(model.language_model.config.tie_word_embeddings)
    awaited = dict(model.named_parameters(remove_duplicate=False))
    if tied:
        awaited.pop("language_model.lm_head.weight", None)
    for stored in _stream(directory):
        place = _place_of(stored)
        # Tied checkpoints store a redundant head.
        if not place or (tied and place == "language_model.lm_head.weight"):
            continue
        _check(stored, place, awaited)
        value = stored.value.reshape(awaited.pop(place).shape).to(device=device, dtype=dtype, copy=True)
        _put(model, place, nn.Parameter(value, requires_grad=False))
    if awaited:
        raise CheckpointError(
            f"{len(awaited)} tensors are missing, first {min(awaited)}", file=_weights_file(directory).name
        )
    _finish_language_model(model.language_model, device, tied=tied)
    return model.eval().requires_grad_(requires_grad=False)


def _empty_language_model(config: OvisConfig, dtype: torch.dtype) -> PreTrainedModel:
    try:
        text_config = CONFIG_MAPPING[config.text["model_type"]].from_dict(config.text)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(text_config, dtype=dtype)
    except (KeyError, TypeError, ValueError) as exc:
        raise CheckpointError(f"llm_config is not usable ({exc})", file="config.json") from exc
    return model


def _finish_language_model(language_model: PreTrainedModel, device: torch.device, *, tied: bool) -> None:
    """Ties the head and computes the rotary tables, which no checkpoint stores."""
    if tied:
        language_model.lm_head.weight = language_model.model.embed_tokens.weight
    rotary = type(language_model.model.rotary_emb)
    language_model.model.rotary_emb = rotary(language_model.config).to(device)
    left = [name for name, buffer in language_model.named_buffers() if buffer.is_meta]
    if left:
        raise CheckpointError(f"no rule fills buffer {left[0]}", file="config.json")


def _weights_file(directory: Path) -> Path:
    index = directory / "model.safetensors.index.json"
    return index if index.exists() else directory / "model.safetensors"


def _stream(directory: Path) -> Iterator[StoredTensor]:
    """Yields every stored tensor, shard by shard; at most one is in memory at a time."""
    weights = _weights_file(directory)
    if weights.suffix == ".safetensors":
        yield from _read_shard(weights, None)
        return
    try:
        weight_map: dict[str, str] = json.loads(weights.read_text(encoding="utf-8"))["weight_map"]
        shards: dict[str, set[str]] = {}
        for name, shard in weight_map.items():
            shards.setdefault(shard, set()).add(name)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as exc:
        raise CheckpointError("is not a shard index", file=weights.name) from exc
    for shard, names in sorted(shards.items()):
        if Path(shard).name != shard:
            raise CheckpointError("names a file outside the checkpoint", file=weights.name)
        yield from _read_shard(directory / shard, names)


def _read_shard(file: Path, listed: set[str] | None) -> Iterator[StoredTensor]:
    try:
        with safe_open(file, framework="pt", device="cpu") as shard:
            names = set(shard.keys())
            for name in sorted((listed or set()) - names):
                raise CheckpointError("is listed in the index but not stored", file=file.name, tensor=name)
            for name in sorted(names):
                yield StoredTensor(file.name, name, shard.get_tensor(name))
    except OSError as exc:
        raise CheckpointError("cannot be read", file=file.name) from exc
    except SafetensorError as exc:
        raise CheckpointError(f"is not a whole safetensors file ({exc})", file=file.name) from exc


def _place_of(stored: StoredTensor) -> str:
    """Our name for a stored tensor, empty to drop it."""
    for pattern, place in RULES:
        if pattern.match(stored.name):
            return pattern.sub(place, stored.name)
    raise CheckpointError("is not part of this model family", file=stored.file, tensor=stored.name)


def _check(stored: StoredTensor, place: str, awaited: dict[str, nn.Parameter]) -> None:
    parameter = awaited.get(place)
    if parameter is None:
        raise CheckpointError("is stored twice or not part of this configuration", file=stored.file, tensor=stored.name)
    shape = tuple(stored.value.shape)
    if place == "encoder.tower.position" and shape[:1] == (1,):
        shape = shape[1:]  # stored with a batch dimension
    if shape != tuple(parameter.shape):
        raise CheckpointError(
            f"has shape {tuple(stored.value.shape)}, the configuration wants {tuple(parameter.shape)}",
            file=stored.file,
            tensor=stored.name,
        )


def _put(model: nn.Module, place: str, parameter: nn.Parameter) -> None:
    owner, _, leaf = place.rpartition(".")
    setattr(model.get_submodule(owner), leaf, parameter)
