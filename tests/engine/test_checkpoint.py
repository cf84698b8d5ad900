"""Loading: good checkpoints in one file or shards, and bad ones that are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ovis_engine.bundled import bundled_model_path
from ovis_engine.checkpoint import load_model
from ovis_engine.config import read_config
from ovis_engine.errors import CheckpointError, UnsupportedModelError
from tests.engine.conftest import read_json
from tests.engine.original import write_converted

CPU = torch.device("cpu")
HEAD = "visual_tokenizer.head.0.weight"
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    return copied(tiny, tmp_path)


def copied(source: Path, tmp_path: Path) -> Path:
    target = tmp_path / "model"
    target.mkdir()
    for file in source.iterdir():
        shutil.copyfile(file, target / file.name)
    return target


def rewrite(directory: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def shard(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {name: f"model-{index % 2}.safetensors" for index, name in enumerate(names)}
    for file in set(weight_map.values()):
        save_file({name: tensors[name] for name in names if weight_map[name] == file}, directory / file)
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def load_error(directory: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load_model(directory, device=CPU, dtype=torch.float32)
    return caught.value


def test_shards_load_as_one_file_does(copy: Path, tiny: Path) -> None:
    shard(copy)
    whole = load_model(tiny, device=CPU, dtype=torch.float32).state_dict()
    sharded = load_model(copy, device=CPU, dtype=torch.float32).state_dict()
    assert whole.keys() == sharded.keys()
    assert all(torch.equal(value, sharded[name]) for name, value in whole.items())


def test_a_tied_head_shares_the_embedding(tiny: Path, parity: Path) -> None:
    tied = load_model(tiny, device=CPU, dtype=torch.float32).language_model
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    untied = load_model(parity / "models" / "ovis2-tiny-untied", device=CPU, dtype=torch.float32).language_model
    assert not torch.equal(untied.lm_head.weight, untied.model.embed_tokens.weight)


def test_a_tied_checkpoint_may_leave_the_head_out(copy: Path) -> None:
    rewrite(copy, lambda tensors: tensors.pop("llm.lm_head.weight"))
    load_model(copy, device=CPU, dtype=torch.float32)


def test_every_parameter_has_the_asked_dtype() -> None:
    model = load_model(bundled_model_path(), device=CPU, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in model.parameters())


def test_a_missing_tensor_is_named(copy: Path) -> None:
    rewrite(copy, lambda tensors: tensors.pop(HEAD))
    error = load_error(copy)
    assert (error.file, error.tensor) == ("model.safetensors", "encoder.head_linear.weight")


GEMMA_LAYER = "visual_tokenizer.backbone.vision_model.encoder.layers.1."


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (f"{GEMMA_LAYER}self_attn.k_proj.bias", "encoder.tower.blocks.1.qkv.bias"),
        (f"{GEMMA_LAYER}layer_norm2.weight", "encoder.tower.blocks.1.norm_2.weight"),
        (
            "llm.model.layers.3.pre_feedforward_layernorm.weight",
            "language_model.model.layers.3.pre_feedforward_layernorm.weight",
        ),
    ],
    ids=["a third", "siglip", "gemma"],
)
def test_a_tensor_missing_from_ovis_1_6_is_named(parity: Path, tmp_path: Path, missing: str, named: str) -> None:
    damaged = copied(parity / "models" / "ovis1.6-gemma2-tiny", tmp_path)
    rewrite(damaged, lambda tensors: tensors.pop(missing))
    error = load_error(damaged)
    assert (error.file, error.tensor) == ("model.safetensors", named)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (f"{GEMMA_LAYER}self_attn.q_proj.weight", torch.zeros(192, 64)),
        ("visual_tokenizer.backbone.vision_model.embeddings.position_embedding.weight", torch.zeros(1024, 64)),
        ("llm.model.layers.0.self_attn.q_proj.weight", torch.zeros(64, 64)),
        ("visual_tokenizer.backbone.trunk.blocks.0.norm_1.weight", torch.zeros(64)),
    ],
    ids=["a third", "positions of another side", "head_dim ignored", "another tower"],
)
def test_a_wrong_tensor_in_ovis_1_6_is_named(parity: Path, tmp_path: Path, name: str, value: torch.Tensor) -> None:
    damaged = copied(parity / "models" / "ovis1.6-gemma2-tiny", tmp_path)
    rewrite(damaged, lambda tensors: tensors.update({name: value}))
    error = load_error(damaged)
    assert (error.file, error.tensor) == ("model.safetensors", name)


@pytest.mark.parametrize(
    "damage",
    [
        lambda tensors: tensors.pop("model.vision_tower.transformer.encoder.layers.0.attention.v_proj.weight"),
        lambda tensors: tensors.update({"model.vision_tower.transformer.extra": torch.zeros(1)}),
        lambda tensors: tensors.update({"model.visual_embeddings_table.weight": torch.zeros(1024, 63)}),
    ],
    ids=["missing", "unexpected", "misshaped"],
)
def test_a_damaged_converted_checkpoint_is_named(
    tiny: Path, tmp_path: Path, damage: Callable[[Tensors], object]
) -> None:
    write_converted(tmp_path / "hf", tiny)
    rewrite(tmp_path / "hf", damage)
    error = load_error(tmp_path / "hf")
    assert error.file == "model.safetensors"
    assert error.tensor is not None


def test_an_unexpected_tensor_is_named(copy: Path) -> None:
    rewrite(copy, lambda tensors: tensors.update({"visual_tokenizer.backbone.extra.weight": torch.zeros(1)}))
    error = load_error(copy)
    assert (error.file, error.tensor) == ("model.safetensors", "visual_tokenizer.backbone.extra.weight")


def test_a_layer_too_many_is_named(copy: Path) -> None:
    name = "visual_tokenizer.backbone.trunk.blocks.9.norm_1.weight"
    rewrite(copy, lambda tensors: tensors.update({name: torch.zeros(64)}))
    assert load_error(copy).tensor == name


def test_a_misshaped_tensor_is_named_with_both_shapes(copy: Path) -> None:
    rewrite(copy, lambda tensors: tensors.update({HEAD: torch.zeros(1, 2)}))
    error = load_error(copy)
    assert error.tensor == HEAD
    assert "(1, 2)" in error.message
    assert "(1019, 256)" in error.message


@pytest.mark.parametrize("keep", [0, 5, 2000, 1_000_000])
def test_a_truncated_file_is_named(copy: Path, keep: int) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert load_error(copy).file == "model.safetensors"


def test_a_missing_weights_file_is_named(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    assert load_error(copy).file == "model.safetensors"


def test_a_missing_shard_is_named(copy: Path) -> None:
    shard(copy)
    (copy / "model-1.safetensors").unlink()
    assert load_error(copy).file == "model-1.safetensors"


def test_a_tensor_that_only_the_index_knows_is_named(copy: Path) -> None:
    shard(copy)
    file = copy / "model.safetensors.index.json"
    index = read_json(file)
    index["weight_map"]["vte.other"] = "model-0.safetensors"
    file.write_text(json.dumps(index), encoding="utf-8")
    error = load_error(copy)
    assert (error.file, error.tensor) == ("model-0.safetensors", "vte.other")


def test_an_index_cannot_reach_outside_the_checkpoint(copy: Path) -> None:
    shard(copy)
    file = copy / "model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": {"x": "../model.safetensors"}}), encoding="utf-8")
    assert load_error(copy).file == "model.safetensors.index.json"


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_bad_configuration_file_is_an_error_of_its_own(copy: Path, file: str, content: str | None) -> None:
    (copy / file).unlink()
    if content is not None:
        (copy / file).write_text(content, encoding="utf-8")
    assert load_error(copy).code == "checkpoint_invalid"


@pytest.mark.parametrize(
    ("name", "eos"),
    [("ovis1.6-gemma2-tiny", (1, 6)), ("ovis1.6-llama3.2-tiny", (761, 764, 765))],
)
def test_ovis_1_6_configurations_are_read(parity: Path, name: str, eos: tuple[int, ...]) -> None:
    config = read_config(parity / "models" / name)
    assert (config.family, config.vision.tower, config.eos_token_ids) == ("ovis1.6", "siglip_vision_model", eos)
    assert (config.vision.tokens_per_tile, config.max_context_tokens) == (196, 8192)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("llm_config", "model_type"), "qwen3", "aimv2 with qwen3"),
        (("visual_tokenizer_config", "backbone_config", "model_type"), "clip", "clip with qwen2"),
        (("visual_tokenizer_config", "tokenize_function"), "gumbel_argmax", "gumbel_argmax"),
    ],
    ids=["language model", "tower", "tokenize function"],
)
def test_other_models_are_refused_by_name(copy: Path, path: tuple[str, ...], value: str, said: str) -> None:
    config = read_json(copy / "config.json")
    *steps, last = path
    place = config
    for step in steps:
        place = place[step]
    place[last] = value
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UnsupportedModelError, match=said) as caught:
        read_config(copy)
    assert caught.value.code == "model_not_supported"


TOWER = "visual_tokenizer_config.backbone_config."


def changed(directory: Path, path: str, value: object, file: str = "config.json") -> Path:
    """Sets one field of a JSON file; a path goes down by dots."""
    content = read_json(directory / file)
    *steps, last = path.split(".")
    place = content
    for step in steps:
        place = place[step]
    place[last] = value
    (directory / file).write_text(json.dumps(content), encoding="utf-8")
    return directory


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (f"{TOWER}patch_size", 0, "patch_size must be a whole number"),
        (f"{TOWER}patch_size", 449, "patch_size must be a whole number"),
        (f"{TOWER}num_attention_heads", 0, "num_attention_heads must be"),
        (f"{TOWER}num_attention_heads", 7, "num_attention_heads must be a divisor of the width, 64, not 7"),
        (f"{TOWER}hidden_size", -8, "hidden_size must be"),
        (f"{TOWER}image_size", 0, "image_size must be"),
        (f"{TOWER}num_hidden_layers", -1, "num_hidden_layers must be"),
        (f"{TOWER}num_hidden_layers", 10**9, "num_hidden_layers must be"),
        (f"{TOWER}model_type", ["aimv2"], "model_type must be text"),
        (f"{TOWER}rms_norm_eps", float("nan"), "rms_norm_eps must be a number above 0"),
        ("visual_tokenizer_config.hidden_stride", 0, "hidden_stride must be"),
        ("visual_tokenizer_config.vocab_size", 2, "vocab_size must be a whole number from 6"),
        ("visual_tokenizer_config", "s", "visual_tokenizer_config must be an object"),
        ("llm_config", [], "llm_config must be an object"),
        ("llm_config", None, "has no llm_config"),
        ("llm_config.num_attention_heads", 0, "llm_config.num_attention_heads must be"),
        ("llm_config.num_key_value_heads", 3, "num_key_value_heads must be a divisor of"),
        ("llm_config.hidden_size", -1, "llm_config.hidden_size must be"),
        ("llm_config.hidden_size", True, "llm_config.hidden_size must be"),
        ("llm_config.num_hidden_layers", "x", "llm_config.num_hidden_layers must be"),
        ("llm_config.vocab_size", "a", "llm_config.vocab_size must be"),
        ("llm_config.head_dim", 0, "llm_config.head_dim must be"),
        ("llm_config.max_position_embeddings", 0, "llm_config.max_position_embeddings must be"),
        ("llm_config.layer_types", ["bogus"], "llm_config.layer_types must be"),
        ("llm_config.layer_types", [[]] * 4, "llm_config.layer_types must be"),
        ("llm_config.rope_theta", "x", "llm_config.rope_theta must be"),
        ("llm_config.rms_norm_eps", float("nan"), "llm_config.rms_norm_eps must be"),
        ("llm_config.rope_scaling", {"rope_type": "bogus"}, "llm_config is not usable"),
        ("llm_config.hidden_act", "nope", "llm_config is not usable"),
        ("llm_config.torch_dtype", "bogus", "llm_config is not usable"),
        ("multimodal_max_length", -5, "multimodal_max_length must be"),
        ("multimodal_max_length", 10**400, "multimodal_max_length must be"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_field_that_cannot_be_is_named(copy: Path, path: str, value: object, said: str) -> None:
    error = load_error(changed(copy, path, value))
    assert error.file == "config.json"
    assert said in error.message
    assert len(error.message) < 400
    assert error.message.isprintable()


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("preprocessor_config.json", "image_std", [0, 0, 0]),
        ("preprocessor_config.json", "image_std", [1, 1]),
        ("preprocessor_config.json", "image_mean", 5),
        ("preprocessor_config.json", "image_mean", [float("nan"), 1, 1]),
        ("generation_config.json", "eos_token_id", "end"),
        ("generation_config.json", "eos_token_id", []),
        ("generation_config.json", "eos_token_id", [-1]),
    ],
    ids=str,
)
def test_a_field_of_another_file_is_named_with_it(copy: Path, file: str, path: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=path) as caught:
        read_config(changed(copy, path, value, file))
    assert caught.value.file == file


def test_how_a_checkpoint_was_run_before_is_no_concern_of_the_engines(copy: Path) -> None:
    changed(copy, "llm_config._attn_implementation", "flash_attention_2")
    load_model(copy, device=CPU, dtype=torch.float32)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("text_config.hidden_size", "x"),
        ("text_config.model_type", "bogus"),
        ("text_config.num_attention_heads", 0),
        ("vision_config", []),
        ("vision_config.hidden_size", "x"),
        ("vision_config.patch_size", 0),
        ("vision_config.num_attention_heads", 7),
        ("vision_config.hidden_stride", 0),
    ],
    ids=str,
)
def test_a_converted_configuration_that_cannot_be_is_an_error_of_its_own(
    tiny: Path, tmp_path: Path, path: str, value: object
) -> None:
    write_converted(tmp_path / "hf", tiny)
    assert load_error(changed(tmp_path / "hf", path, value)).file == "config.json"


@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json"])
def test_json_nested_too_deeply_is_an_error_of_its_own(copy: Path, file: str) -> None:
    (copy / file).write_text("[" * 100_000, encoding="utf-8")
    assert load_error(copy).file == file


@pytest.mark.parametrize("shard_name", [5, "", "..", "x\0y"], ids=repr)
def test_an_index_that_names_no_file_is_an_error_of_its_own(copy: Path, shard_name: object) -> None:
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": shard_name}}), encoding="utf-8")
    assert load_error(copy).file == index.name


def test_the_bundled_model_has_its_own_sizes() -> None:
    config = read_config(bundled_model_path())
    assert (config.vision.image_size, config.vision.hidden_stride, config.vision.tokens_per_tile) == (336, 1, 576)
    assert config.eos_token_ids == (258, 256)
    assert config.max_context_tokens == 4096


def test_an_unknown_bundled_model_is_refused() -> None:
    for name in ("nothing", "..", "../models/ovis2-reader"):
        with pytest.raises(FileNotFoundError):
            bundled_model_path(name)
