"""All eight models: real shapes on the meta device, scaled-down ones that load and run, and both file layouts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from contract.catalogue import CATALOGUE
from ovis_engine.checkpoint import empty_model, load_model
from ovis_engine.config import OvisConfig, read_config
from ovis_engine.embedding import check_rows
from ovis_engine.engine import Engine
from ovis_engine.errors import CheckpointError
from ovis_engine.request import Request
from ovis_engine.tiling import TiledImage
from tests.engine.conftest import SMALL, picture, read_json
from tests.engine.original import write_converted, write_original
from tests.engine.real_configs import MEMBERS, real_config, tiny_config

#: Tiny checkpoints that lend tokenizers, by the real language model's type, and the size of their vocabulary.
LENDERS = {
    "qwen2": ("ovis2-tiny", 763),
    "gemma2": ("ovis1.6-gemma2-tiny", 640),
    "llama": ("ovis1.6-llama3.2-tiny", 767),
}
#: Largest id of the published tokenizers, by language model: Qwen2.5's embeddings have more rows than that.
LARGEST_ID = {"qwen2": 151664, "gemma2": 255999, "llama": 128255}
CPU = torch.device("cpu")


def pictures(side: int) -> tuple[TiledImage, ...]:
    return tuple(picture(name, 4, side=side) for name in ("tiny20.png", "wide.png"))


def configured(directory: Path, name: str, parity: Path) -> OvisConfig:
    """Reads a real configuration as from a checkpoint."""
    lender, _ = LENDERS[MEMBERS[name][1]["model_type"]]
    (directory / "config.json").write_text(json.dumps(real_config(name)), encoding="utf-8")
    preprocessor = parity / "models" / lender / "preprocessor_config.json"
    (directory / "preprocessor_config.json").write_bytes(preprocessor.read_bytes())
    return read_config(directory)


@pytest.mark.parametrize("name", MEMBERS)
def test_the_real_shapes_have_as_many_parameters_as_the_catalogue_says(tmp_path: Path, parity: Path, name: str) -> None:
    config = configured(tmp_path, name, parity)
    card = CATALOGUE[name]
    counted = sum(parameter.numel() for parameter in empty_model(config, torch.bfloat16).parameters())
    print(f"{name}: {counted / 1e9:.3f} B, catalogue {card.params_b} B")
    assert counted / 1e9 == pytest.approx(card.params_b, rel=0.01)
    assert (config.max_context_tokens, config.vision.image_size) == (card.context_tokens, card.tile_side)
    assert config.vision.tokens_per_tile == card.tokens_per_tile


@pytest.mark.parametrize("name", MEMBERS)
def test_every_published_token_id_has_a_row(name: str) -> None:
    text = MEMBERS[name][1]
    eos = text["eos_token_id"]
    largest = LARGEST_ID[text["model_type"]]
    check_rows([0, largest, *(eos if isinstance(eos, list) else [eos])], text["vocab_size"], file="tokenizer.json")
    with pytest.raises(CheckpointError, match=f"token id {text['vocab_size']}, .* has {text['vocab_size']} rows"):
        check_rows([text["vocab_size"]], text["vocab_size"], file="tokenizer.json")


@pytest.mark.parametrize("file", ["tokenizer.json", "generation_config.json"])
def test_a_token_id_without_a_row_refuses_the_checkpoint(tmp_path: Path, tiny: Path, file: str) -> None:
    # Given a tokenizer of another size, or an end token that the model cannot say
    for source in tiny.iterdir():
        (tmp_path / source.name).symlink_to(source)
    content = read_json(tiny / file)
    if file == "tokenizer.json":
        token = {"content": "[[extra]]", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        known = {entry["id"] for entry in content["added_tokens"]} | set(content["model"]["vocab"].values())
        for number in range(max(known) + 1, 770):
            content["added_tokens"].append(token | {"id": number, "content": f"[[{number}]]", "special": False})
    else:
        content["eos_token_id"] = [762, 10**9]
    (tmp_path / file).unlink()
    (tmp_path / file).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"token id \d+, but the embedding has \d+ rows") as caught:
        Engine.from_pretrained(tmp_path, SMALL)
    assert caught.value.file == file


def test_a_pool_that_does_not_fit_is_a_memory_error(tiny: Path) -> None:
    with pytest.raises(MemoryError, match="visual pool"):
        Engine.from_pretrained(tiny, replace(SMALL, visual_pool_rows=2**42))


def test_every_catalogue_entry_on_the_hub_is_covered() -> None:
    assert set(MEMBERS) == {name for name, card in CATALOGUE.items() if card.hub_id}


@pytest.mark.parametrize("name", MEMBERS)
def test_the_scaled_down_model_loads_and_runs(tmp_path: Path, parity: Path, name: str) -> None:
    lender, vocabulary = LENDERS[MEMBERS[name][1]["model_type"]]
    write_original(tmp_path / name, tiny_config(name, vocabulary=vocabulary), parity / "models" / lender)
    with Engine.from_pretrained(tmp_path / name, SMALL) as engine:
        images = pictures(engine.side)
        requests = [
            Request("What is it?", images, max_new_tokens=12, ignore_eos=True),
            Request("Hello.", max_new_tokens=12, ignore_eos=True),
        ]
        together = [engine.submit(request) for request in requests]
        tokens = [future.result(60).token_ids for future in together]
        again = [replace(request, request_id=f"{request.request_id}-again") for request in requests]
        assert [engine.submit(request).result(60).token_ids for request in again] == tokens
        assert all(len(row) == 12 for row in tokens)


def test_siglip_projections_are_joined_in_order(parity: Path) -> None:
    directory = parity / "models" / "ovis1.6-gemma2-tiny"
    stored = load_file(directory / "model.safetensors")
    layer = "visual_tokenizer.backbone.vision_model.encoder.layers.1.self_attn."
    joined = torch.cat([stored[f"{layer}{letter}_proj.bias"] for letter in "qkv"])
    assert torch.equal(load_model(directory, device=CPU, dtype=torch.float32).encoder.tower.blocks[1].qkv.bias, joined)


@pytest.mark.parametrize("name", ["ovis2-tiny", "ovis2-tiny-untied"])
def test_a_converted_checkpoint_gives_the_tokens_of_the_original(tmp_path: Path, parity: Path, name: str) -> None:
    original, converted = parity / "models" / name, tmp_path / f"{name}-hf"
    write_converted(converted, original)
    assert read_json(converted / "config.json")["model_type"] == "ovis2"
    requests = [
        Request("What is it?", pictures(448), max_new_tokens=16, ignore_eos=True),
        Request("Hello.", max_new_tokens=16, ignore_eos=True),
    ]
    tokens = []
    for directory in (original, converted):
        with Engine.from_pretrained(directory, SMALL) as engine:
            tokens.append([engine.submit(request).result(60).token_ids for request in requests])
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("name", ["ovis2-tiny", "ovis2-tiny-untied"])
def test_a_converted_checkpoint_holds_the_same_weights(tmp_path: Path, parity: Path, name: str) -> None:
    write_converted(tmp_path / "hf", parity / "models" / name)
    states = [
        load_model(directory, device=CPU, dtype=torch.float32).state_dict()
        for directory in (parity / "models" / name, tmp_path / "hf")
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][place]) for place, value in states[0].items())


def test_a_converted_checkpoint_may_keep_its_normalisation_with_the_processor(tmp_path: Path, tiny: Path) -> None:
    write_converted(tmp_path / "hf", tiny)
    preprocessor = read_json(tmp_path / "hf" / "preprocessor_config.json")
    (tmp_path / "hf" / "preprocessor_config.json").unlink()
    whole = tmp_path / "hf" / "processor_config.json"
    whole.write_text(json.dumps({"image_processor": preprocessor}), encoding="utf-8")
    assert read_config(tmp_path / "hf").image_mean == read_config(tiny).image_mean
