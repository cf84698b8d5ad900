"""Packed layers against plain ones."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from ovis_engine.aimv2 import RMSNorm
from ovis_engine.packed_model import pack_layers
from ovis_engine.packing import (
    PackedGatedMlp,
    PackedLinear,
    pack_language_model,
    pack_linears,
    packing_pays,
    swish_gated,
)
from tests.engine.conftest import load_tiny

CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(not packing_pays(CPU, torch.bfloat16), reason="this CPU has no bfloat16 kernels")


def linear(width: int, inner: int, *, bias: bool) -> nn.Linear:
    torch.manual_seed(width)
    return nn.Linear(width, inner, bias=bias).to(torch.bfloat16).requires_grad_(requires_grad=False)


@pytest.mark.parametrize("shape", [(1, 1, 48), (2, 7, 48), (300, 48)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_maps_as_the_plain_one(shape: tuple[int, ...], bias: bool) -> None:
    plain = linear(48, 80, bias=bias)
    hidden = torch.randn(shape).to(torch.bfloat16)
    torch.testing.assert_close(PackedLinear(plain)(hidden), plain(hidden), atol=0.02, rtol=0.02)


def test_fused_gates_give_what_separate_ones_give() -> None:
    gate, up, hidden = linear(48, 80, bias=True), linear(48, 80, bias=False), torch.randn(5, 48).to(torch.bfloat16)
    plain = swish_gated(gate, up, hidden)
    assert torch.equal(plain, functional.silu(gate(hidden)) * up(hidden))
    torch.testing.assert_close(swish_gated(PackedLinear(gate), PackedLinear(up), hidden), plain, atol=0.03, rtol=0.03)


class Gated(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = linear(48, 80, bias=False), linear(48, 80, bias=False)
        self.down_proj, self.act_fn = linear(80, 48, bias=False), activation

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(hidden)) * self.up_proj(hidden))


@pytest.mark.parametrize(("activation", "name"), [(nn.SiLU(), "swish"), (nn.GELU(approximate="tanh"), "gelu")])
def test_a_packed_gated_layer_maps_as_the_plain_one(activation: nn.Module, name: str) -> None:
    plain, hidden = Gated(activation), torch.randn(1, 9, 48).to(torch.bfloat16)
    torch.testing.assert_close(PackedGatedMlp(plain, name)(hidden), plain(hidden), atol=0.02, rtol=0.02)


def test_a_packed_model_says_nearly_what_the_plain_one_says() -> None:
    model = load_tiny().to(torch.bfloat16)
    packed = copy.deepcopy(model)
    assert pack_layers(packed.language_model)
    pack_language_model(packed.language_model)
    pack_linears(packed.encoder)
    assert not any(type(module) is nn.Linear for module in packed.modules())
    token_ids, pixels = torch.arange(40)[None], torch.randn(1, 3, 448, 448).to(torch.bfloat16)
    with torch.inference_mode():
        for one, other in (
            (model.language_model(token_ids).logits, packed.language_model(token_ids).logits),
            (model.encoder.features(pixels), packed.encoder.features(pixels)),
        ):
            assert functional.cosine_similarity(one.float(), other.float(), dim=-1).min() > 0.99


def test_float32_is_never_packed() -> None:
    assert not packing_pays(CPU, torch.float32)
    assert not packing_pays(torch.device("cuda"), torch.bfloat16)


def test_the_towers_norm_in_bfloat16_is_the_float32_one_rounded() -> None:
    norm, hidden = RMSNorm(48, 1e-5), torch.randn(3, 7, 48).to(torch.bfloat16)
    norm.weight.data.uniform_(0.5, 2)
    with torch.inference_mode():
        torch.testing.assert_close(norm(hidden), norm(hidden.float()).to(torch.bfloat16), atol=0, rtol=0.01)
