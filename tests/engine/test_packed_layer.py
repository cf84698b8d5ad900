"""The written decoder layer in the decode loop, against the library's layers in a plain forward pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ovis_engine.attention import set_attention
from ovis_engine.batching import DecodeLoop
from ovis_engine.checkpoint import load_model
from ovis_engine.packed_layer import PackedLayer, Rotations
from ovis_engine.packed_model import PackedModel, pack_layers
from ovis_engine.packing import packing_pays
from ovis_engine.row import Row
from ovis_engine.usage import LoopLimits, RowEnd
from tests.engine.conftest import PARITY

CPU = torch.device("cpu")
MODELS = PARITY / "models"

pytestmark = pytest.mark.skipif(not packing_pays(CPU, torch.bfloat16), reason="this CPU has no bfloat16 kernels")


def language_model(directory: Path, dtype: torch.dtype) -> PreTrainedModel:
    model = load_model(directory, device=CPU, dtype=dtype).language_model
    set_attention(model)
    return model


def run(model: PreTrainedModel, rows: list[Row], limits: LoopLimits) -> None:
    ended: list[RowEnd] = []
    loop = DecodeLoop(model, limits, on_row_end=ended.append, on_exit=print)
    for row in rows:
        loop.add(row)
    loop.start()
    while len(ended) < len(rows):
        loop.flush_prefix_cache()  # waits for the loop to come round
    loop.stop()
    assert [end.error for end in ended] == [None] * len(rows)


@torch.inference_mode()
def plain_logprobs(model: PreTrainedModel, row: Row) -> Tensor:
    """What the plain model thinks of each token that the row generated."""
    token_ids = torch.tensor([[*row.prompt_ids, *row.token_ids]])
    logits = model(token_ids).logits[0, len(row.prompt_ids) - 1 : -1].float()
    return logits.log_softmax(-1)[torch.arange(len(row.token_ids)), row.token_ids]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.4)], ids=str)
@pytest.mark.parametrize("name", ["ovis2-tiny", "ovis1.6-llama3.2-tiny"])
def test_rows_of_many_lengths_think_of_their_tokens_as_the_plain_model(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    packed = language_model(MODELS / name, dtype)
    assert pack_layers(packed)
    # Some prompts come in whole and some by chunks, beside rows that decode; the last ones share a prefix.
    lengths = (1, 2, 40, 70, 41, 130, 130)
    rows = [Row(str(place), list(range(5, 5 + n)), max_new_tokens=9, num_logprobs=1) for place, n in enumerate(lengths)]
    run(packed, rows, LoopLimits(num_blocks=64, page_size=16, max_batch_tokens=48, max_rows=5))
    plain = language_model(MODELS / name, dtype)
    for row in rows:
        found = torch.tensor([entry.logprob for entry in row.logprobs])
        torch.testing.assert_close(found, plain_logprobs(plain, row), atol=tolerance, rtol=0.01)


def test_prompts_that_come_in_together_and_whole_give_the_plain_models_tokens() -> None:
    packed = language_model(MODELS / "ovis2-tiny", torch.float32)
    assert pack_layers(packed)
    rows = [Row(str(n), list(range(5, 5 + n)), max_new_tokens=4, num_logprobs=1) for n in (30, 1, 65)]
    run(packed, rows, LoopLimits(num_blocks=64, page_size=16, max_batch_tokens=512, max_rows=4))
    plain = language_model(MODELS / "ovis2-tiny", torch.float32)
    for row in rows:
        logits = plain(torch.tensor([[*row.prompt_ids, *row.token_ids]])).logits[0, len(row.prompt_ids) - 1 : -1]
        assert logits.argmax(-1).tolist() == row.token_ids


def test_all_layers_are_replaced_or_none() -> None:
    known = language_model(MODELS / "ovis2-tiny", torch.bfloat16)
    assert pack_layers(known)
    assert all(type(layer) is PackedLayer for layer in known.model.layers)
    assert type(known.model.rotary_emb) is Rotations
    capped = language_model(MODELS / "ovis1.6-gemma2-tiny", torch.bfloat16)
    assert not pack_layers(capped)
    assert not any(type(layer) is PackedLayer for layer in capped.model.layers)


@torch.inference_mode()
def test_a_packed_model_gives_the_plain_models_logits_of_the_tokens_asked_for() -> None:
    packed = language_model(MODELS / "ovis2-tiny", torch.float32)
    assert PackedModel.of(packed) is None
    assert pack_layers(packed)
    model = PackedModel.of(packed)
    assert model is not None
    token_ids, wanted = torch.arange(5, 45)[None], torch.tensor([3, 39])
    found = model(input_ids=token_ids, position_ids=torch.arange(40)[None], logits_to_keep=wanted).logits
    plain = language_model(MODELS / "ovis2-tiny", torch.float32)(token_ids).logits
    torch.testing.assert_close(found, plain[:, wanted], atol=1e-4, rtol=1e-4)
