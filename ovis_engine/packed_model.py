"""A language model of packed layers, run without the library's model around them.

What the library does besides for every step, a mask that nobody reads and a norm of tokens whose logits nobody wants,
costs as much as a layer where a step has few tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, cast

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

from ovis_engine.packed_layer import PackedLayer, PackedNorm, Rotations
from ovis_engine.packing import activation_of


@dataclass(frozen=True)
class Logits:
    """What a model gives: logits (1, tokens asked for, vocabulary)."""

    logits: Tensor


@dataclass(frozen=True)
class PackedModel:
    """The parts of a language model that `pack_layers` has packed, to be called as the library calls the model."""

    embed: nn.Module
    rotations: nn.Module
    layers: tuple[nn.Module, ...]
    norm: nn.Module
    head: nn.Module

    @classmethod
    def of(cls, language_model: PreTrainedModel) -> Self | None:
        """None for a model whose layers are not packed."""
        model: Any = language_model.model
        if not all(type(layer) is PackedLayer for layer in model.layers):
            return None
        return cls(
            embed=model.embed_tokens,
            rotations=model.rotary_emb,
            layers=tuple(model.layers),
            norm=model.norm,
            head=cast(nn.Module, language_model.lm_head),
        )

    def __call__(self, *, input_ids: Tensor, position_ids: Tensor, logits_to_keep: Tensor, **batch: Any) -> Logits:
        """Logits of some tokens of a packed batch.

        Args:
            input_ids: (1, tokens).
            position_ids: As input_ids.
            logits_to_keep: (tokens asked for,) integers, their places.
            **batch: For the layers.
        """
        hidden = self.embed(input_ids)
        turns = self.rotations(hidden, position_ids)
        for layer in self.layers:
            hidden = layer(hidden, position_embeddings=turns, **batch)
        return Logits(self.head(self.norm(hidden[:, logits_to_keep])))


def pack_layers(language_model: PreTrainedModel) -> bool:
    """Replaces the decoder layers of a loaded language model, in place and for good, if all are of a known kind.

    Returns:
        Whether they were.
    """
    model: Any = language_model.model
    if not all(packs(layer) for layer in model.layers):
        return False
    last = len(model.layers) - 1
    for number, layer in enumerate(list(model.layers)):
        activation = activation_of(layer.mlp)
        assert activation is not None
        model.layers[number] = PackedLayer(layer, activation, is_last=number == last)
    model.rotary_emb, model.norm = Rotations(model.rotary_emb), PackedNorm(model.norm)
    return True


def packs(layer: nn.Module) -> bool:
    """Whether a library layer is of a kind that `PackedLayer` computes."""
    if type(layer) not in (Qwen2DecoderLayer, LlamaDecoderLayer):
        return False
    attention: Any = layer.self_attn
    whole = getattr(attention, "sliding_window", None) is None
    return whole and attention.head_dim % 2 == 0 and activation_of(cast(nn.Module, layer.mlp)) is not None
