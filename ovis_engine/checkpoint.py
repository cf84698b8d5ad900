"""Loads an Ovis checkpoint, original or converted: safetensors, streamed tensor by tensor to the device.

The model is built without memory (meta device); each stored tensor is renamed, checked against the place it belongs to
and copied there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ovis_engine.config import OvisConfig, read_config
from ovis_engine.errors import CheckpointError
from ovis_engine.fields import in_short
from ovis_engine.renaming import Place, Renamer
from ovis_engine.shards import StoredTensor, stream_tensors, weights_file
from ovis_engine.vision import VisualEncoder

HEAD = "language_model.lm_head.weight"


class OvisModel(nn.Module):
    """The two halves of an Ovis model; the engine wires them together."""

    def __init__(self, config: OvisConfig, language_model: PreTrainedModel) -> None:
        super().__init__()
        self.config = config
        self.encoder = VisualEncoder(config)
        self.language_model = language_model
        #: What the language model's embedding multiplies text with; visual embeddings need the same, once.
        self.embed_scale = float(getattr(language_model.get_input_embeddings(), "scalar_embed_scale", 1.0))


def load_model(directory: Path, *, device: torch.device, dtype: torch.dtype) -> OvisModel:
    """Loads a checkpoint in the original or the converted layout.

    Host memory: the largest shard (its pages are mapped while it is read) plus, on the CPU, the model.

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
    model = empty_model(config, dtype)
    tied = bool(model.language_model.config.tie_word_embeddings)
    loading = _Loading(model, device, dtype, tied=tied)
    renamer = Renamer(config.layout, config.vision.tower)
    for stored in stream_tensors(directory):
        place = renamer.place_of(stored.name)
        if place is None:
            raise CheckpointError("is not part of this model family", file=stored.file, tensor=stored.name)
        # Tied checkpoints store a redundant head.
        if place.name and not (tied and place.name == HEAD):
            loading.take(stored, place)
    loading.finish(weights_file(directory).name)
    _finish_language_model(model.language_model, device, tied=tied)
    return model.eval().requires_grad_(requires_grad=False)


def empty_model(config: OvisConfig, dtype: torch.dtype) -> OvisModel:
    """Builds a model on the meta device: shapes without memory.

    Raises:
        CheckpointError: If the configuration is not usable.
    """
    with torch.device("meta"), _RangesInMemory(), no_init_weights():
        with _usable("llm_config"):
            text_config = CONFIG_MAPPING[config.text["model_type"]].from_dict(config.text)
            language_model: PreTrainedModel = AutoModelForCausalLM.from_config(text_config, dtype=dtype)
            language_model.tie_weights()  # left out with the first values
        with _usable("visual_tokenizer_config"):
            return OvisModel(config, language_model)


class _RangesInMemory(TorchFunctionMode):
    """Has number ranges computed for real: without memory they load a package for symbolic maths, 35 MiB of it.

    So would drawing the first values of weights. What is made from ranges is replaced once the weights are loaded.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        return func(*args, **({"device": "cpu"} | options if func is torch.arange else options))


@contextmanager
def _usable(part: str) -> Iterator[None]:
    """Whatever the libraries raise over a part of the configuration, as one error."""
    try:
        yield
    except Exception as exc:
        raise CheckpointError(f"{part} is not usable ({in_short(exc)})", file="config.json") from exc


class _Loading:
    """The parameters that a checkpoint still owes."""

    def __init__(self, model: OvisModel, device: torch.device, dtype: torch.dtype, *, tied: bool) -> None:
        self._model, self._device, self._dtype = model, device, dtype
        self._awaited = {
            name: parameter.shape
            for name, parameter in model.named_parameters(remove_duplicate=False)
            if not (tied and name == HEAD)
        }
        #: Parameters that come in three parts and the parts still missing.
        self._partial: dict[str, tuple[Tensor, set[str]]] = {}

    def take(self, stored: StoredTensor, place: Place) -> None:
        """Checks a stored tensor and copies it to its place."""
        shape = self._awaited.get(place.name)
        if shape is None or (place.name in self._partial and place.part not in self._partial[place.name][1]):
            raise CheckpointError(
                "is stored twice or not part of this configuration", file=stored.file, tensor=stored.name
            )
        if place.part:
            self._take_part(stored, place, shape)
            return
        value = _shaped(stored, place, shape)
        self._put(place.name, value.to(device=self._device, dtype=self._dtype, copy=True))

    def finish(self, file: str) -> None:
        """Raises `CheckpointError` if anything is left."""
        if self._awaited:
            first = min(self._awaited)
            parts = sorted(self._partial[first][1]) if first in self._partial else []
            which = f" (its parts {', '.join(parts)})" if parts else ""
            raise CheckpointError(
                f"{len(self._awaited)} tensors are missing, this first{which}", file=file, tensor=first
            )

    def _take_part(self, stored: StoredTensor, place: Place, shape: torch.Size) -> None:
        if place.name not in self._partial:
            self._partial[place.name] = (torch.empty(shape, device=self._device, dtype=self._dtype), set("qkv"))
        whole, missing = self._partial[place.name]
        part = whole.chunk(3)["qkv".index(place.part)]
        part.copy_(_shaped(stored, place, part.shape))
        missing.remove(place.part)
        if not missing:
            del self._partial[place.name]
            self._put(place.name, whole)

    def _put(self, place: str, value: Tensor) -> None:
        owner, _, leaf = place.rpartition(".")
        setattr(self._model.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=False))
        del self._awaited[place]


def _shaped(stored: StoredTensor, place: Place, shape: torch.Size) -> Tensor:
    """The stored value, without the batch dimension that the original stores position embeddings with."""
    found = stored.value.shape
    if place.name == "encoder.tower.position" and found[:1] == (1,):
        found = found[1:]
    if found != shape:
        raise CheckpointError(
            f"has shape {tuple(stored.value.shape)}, the configuration wants {tuple(shape)}",
            file=stored.file,
            tensor=stored.name,
        )
    return stored.value.reshape(shape)


def _finish_language_model(language_model: PreTrainedModel, device: torch.device, *, tied: bool) -> None:
    """Ties the head and computes what no checkpoint stores: the rotary tables and the embedding's scale."""
    embedding = language_model.get_input_embeddings()
    if tied:
        language_model.lm_head.weight = embedding.weight
    rotary = type(language_model.model.rotary_emb)
    with _usable("llm_config"):
        language_model.model.rotary_emb = rotary(language_model.config).to(device)
    if hasattr(embedding, "embed_scale"):
        embedding.embed_scale = torch.tensor(embedding.scalar_embed_scale, device=device)
    left = [name for name, buffer in language_model.named_buffers() if buffer.device.type != device.type]
    if left:
        raise CheckpointError(f"no rule fills buffer {left[0]}", file="config.json")
