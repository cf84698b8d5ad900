"""Linear layers laid out once for the CPU's matrix kernels, with what follows them fused in.

torch lays a bfloat16 weight out anew for every call. A layer packed in oneDNN's own layout saves that: a decode step
of 16 rows takes three quarters of the time (figures in ``docs/performance.md``). Weights stay what they are; sums are
taken in another order.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

#: Rows of input that the layout is chosen for: between a decode step's and a prompt's.
TYPICAL_ROWS = 64


class PackedLinear(nn.Module):
    """A linear layer without gradients, for the CPU it was made on only."""

    def __init__(self, linear: nn.Linear) -> None:
        """Copies a layer's weight into the new layout; shares its bias."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        # Not a buffer: its memory means nothing to anything but the kernels.
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), TYPICAL_ROWS)

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps (..., in_features) to (..., out_features)."""
        mapped: Tensor = torch.ops.mkldnn._linear_pointwise(hidden, self.packed, self.bias, "none", [], "")
        return mapped

    def activated(self, hidden: Tensor, activation: str) -> Tensor:
        """As `forward`, then ``swish`` or ``gelu`` (its tanh form), in one pass."""
        algorithm = "tanh" if activation == "gelu" else ""
        mapped: Tensor = torch.ops.mkldnn._linear_pointwise(hidden, self.packed, self.bias, activation, [], algorithm)
        return mapped

    def plus(self, hidden: Tensor, addend: Tensor) -> Tensor:
        """As `forward`, then added to something of the same shape, in one pass."""
        mapped: Tensor = torch.ops.mkldnn._linear_pointwise.binary(hidden, addend, self.packed, self.bias, "add")
        return mapped


class PackedGatedMlp(nn.Module):
    """The language models' gated feed-forward layer over packed layers."""

    def __init__(self, mlp: nn.Module, activation: str) -> None:
        """Packs a library module with ``gate_proj``, ``up_proj`` and ``down_proj``."""
        super().__init__()
        self.gate, self.up, self.down = (
            PackedLinear(getattr(mlp, name)) for name in ("gate_proj", "up_proj", "down_proj")
        )
        self._activation = activation

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps (..., width) to the same shape."""
        mixed: Tensor = self.down(self._gated(hidden))
        return mixed

    def plus(self, hidden: Tensor, addend: Tensor) -> Tensor:
        """As `forward`, then added to something of the same shape, in one pass."""
        return self.down.plus(self._gated(hidden), addend)

    def _gated(self, hidden: Tensor) -> Tensor:
        return _gated(self.gate.activated(hidden, self._activation), self.up, hidden)


def packing_pays(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether layers on a device are to be packed: in bfloat16 only, float32 is kept for comparing sums bit by bit."""
    if device.type != "cpu" or dtype != torch.bfloat16 or platform.machine() != "x86_64":
        return False
    return bool(torch._C._has_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack_language_model(language_model: PreTrainedModel) -> None:
    """Replaces the linear layers of a loaded language model by packed ones, in place and for good.

    The head of a model with tied embeddings becomes a copy of them.
    """
    for layer in language_model.model.layers:
        activation = activation_of(layer.mlp)
        if activation is not None:
            layer.mlp = PackedGatedMlp(layer.mlp, activation)
    pack_linears(language_model)


def pack_linears(module: nn.Module) -> None:
    """Replaces every plain linear layer below a module by a packed one, in place and for good."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, PackedLinear(child))


def swish_gated(gate: nn.Module, up: nn.Module, hidden: Tensor) -> Tensor:
    """``silu(gate(hidden)) * up(hidden)``, fused where the layers are packed."""
    if isinstance(gate, PackedLinear) and isinstance(up, PackedLinear):
        return _gated(gate.activated(hidden, "swish"), up, hidden)
    gated: Tensor = functional.silu(gate(hidden)) * up(hidden)
    return gated


def added_to(residual: Tensor, linear: nn.Module, hidden: Tensor) -> Tensor:
    """``residual + linear(hidden)``, fused where the layer is packed."""
    if isinstance(linear, PackedLinear):
        return linear.plus(hidden, residual)
    total: Tensor = residual + linear(hidden)
    return total


def activation_of(mlp: nn.Module) -> str | None:
    """The kernels' name for a gated layer's activation; None if it is no gated layer or they lack the activation."""
    activation: Any = getattr(mlp, "act_fn", None)
    if activation is None or not all(hasattr(mlp, name) for name in ("gate_proj", "up_proj", "down_proj")):
        return None
    probe = torch.linspace(-4.0, 4.0, 33)
    found = activation(probe)
    if torch.equal(found, functional.silu(probe)):
        return "swish"
    return "gelu" if torch.equal(found, functional.gelu(probe, approximate="tanh")) else None


def _gated(gate: Tensor, up: PackedLinear, hidden: Tensor) -> Tensor:
    # A factor that rides on the product costs it more than a pass of its own (0.5 ms against 0.15 for 550 tokens).
    return gate.mul_(up(hidden))
