"""Stages resume exactly, and what is exported is what was trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ovis_engine.checkpoint import OvisModel, load_model
from ovis_engine.config import read_config
from ovis_engine.renaming import Renamer
from ovis_engine.vision import to_pixels
from tools.reader.copying import copy_out, transcript_of
from tools.reader.export import export, stored_name
from tools.reader.pages import PageSet
from tools.reader.prompts import prompt_ids
from tools.reader.reader_stage import ReaderStage, keep_least_blank
from tools.reader.shape import build_model, write_json_files
from tools.reader.tower_stage import TowerStage, tile_of
from tools.reader.training import Plan, Stage, State, load_state, packed, rate_at, save_state, train
from tools.reader.words_stage import WordsStage

PLAN = Plan(rate=1e-3, warm_steps=2)


def losses(file: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in file.with_suffix(".jsonl").read_text().splitlines()]


def stage_of(kind: type[TowerStage | WordsStage | ReaderStage], model: OvisModel, pages: PageSet) -> Stage:
    return kind(model, replace(pages, wishes=replace(pages.wishes, max_lines=3)), batch=1)


@pytest.mark.parametrize("kind", [TowerStage, WordsStage, ReaderStage])
def test_a_run_that_was_interrupted_goes_on_as_if_it_was_not(
    kind: type[TowerStage | WordsStage | ReaderStage], model: OvisModel, pages: PageSet, tmp_path: Path
) -> None:
    begun = {name: value.clone() for name, value in model.state_dict().items()}
    whole, halves = tmp_path / "whole.pt", tmp_path / "halves.pt"
    train(stage_of(kind, model, pages), whole, replace(PLAN, max_steps=4, log_every=1))
    for steps in (2, 4):
        again = build_model()
        again.load_state_dict(begun)
        train(stage_of(kind, again, pages), halves, replace(PLAN, max_steps=steps, log_every=1))
    assert losses(halves) == losses(whole)
    assert len(set(losses(whole))) == 4
    first, second = load_state(whole), load_state(halves)
    assert (first.step, second.step) == (4, 4)
    assert all(torch.equal(second.weights[name], value) for name, value in first.weights.items())


def test_annealing_brings_the_rate_to_zero_and_then_ends(model: OvisModel, pages: PageSet, tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    train(stage_of(WordsStage, model, pages), file, replace(PLAN, max_steps=1))
    state = train(stage_of(WordsStage, model, pages), file, replace(PLAN, anneal_steps=2))
    assert (state.step, state.anneal_from) == (3, 1)
    plan = replace(PLAN, warm_steps=1, anneal_steps=4)
    assert [rate_at(plan, State(step, anneal_from=10)) for step in (10, 12, 14)] == pytest.approx([1e-3, 5e-4, 0])


def test_a_packed_state_warms_up_again(model: OvisModel, pages: PageSet, tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    whole = train(stage_of(WordsStage, model, pages), file, replace(PLAN, max_steps=3))
    size = file.stat().st_size
    save_state(packed(whole), file)
    assert file.stat().st_size < 0.4 * size
    state = load_state(file)
    assert (state.step, state.warm_from, state.optimizer) == (3, 3, {})
    assert [rate_at(PLAN, replace(state, step=step)) for step in (3, 4, 5)] == pytest.approx([5e-4, 1e-3, 1e-3])
    assert train(stage_of(WordsStage, model, pages), file, replace(PLAN, max_steps=4)).step == 4


def test_every_parameter_is_stored_where_the_engine_looks_for_it(model: OvisModel) -> None:
    renamer = Renamer("original", "aimv2")
    for name, _ in model.named_parameters():
        place = renamer.place_of(stored_name(name))
        assert place is not None
        assert place.name == name


@torch.inference_mode()
def test_the_engine_computes_what_was_trained(model: OvisModel, pages: PageSet, tmp_path: Path) -> None:
    # Stored in bfloat16: rounded first, so that both sides hold the same numbers.
    for parameter in model.parameters():
        parameter.copy_(parameter.to(torch.bfloat16).float())
    export(model, tmp_path)
    served = load_model(tmp_path, device=torch.device("cpu"), dtype=torch.float32)
    page, picture = pages.picture(0)
    pixels = to_pixels([tile_of(picture)], model.config)
    words = model.encoder.probabilities(model.encoder.features(pixels))
    torch.testing.assert_close(served.encoder(pixels), model.encoder.embed(words))

    transcript, prompt = transcript_of(page.text, page.symbols), prompt_ids("Read the text.")
    patches = torch.arange(words.shape[1])[None]
    trained = copy_out(model, prompt, words, patches, [transcript]).logits
    embeddings = served.language_model.get_input_embeddings()
    atom = prompt.index(-300)
    row = [served.encoder.indicators[-301 - token] if token < 0 else embeddings.weight[token] for token in prompt]
    written = embeddings(torch.tensor(transcript.tokens[:-1]))
    whole = torch.cat([torch.stack(row[:atom]), served.encoder(pixels)[0], torch.stack(row[atom + 1 :]), written])
    logits = served.language_model(inputs_embeds=whole[None]).logits
    torch.testing.assert_close(logits[:, -trained.shape[1] :], trained)


def test_patches_that_may_hold_something_are_kept_in_order() -> None:
    words = torch.zeros(1, 4, 3)
    words[0, :, 0] = torch.tensor([0.9, 0.1, 1.0, 0.2])
    kept, patches = keep_least_blank(words, 3)
    assert patches.tolist() == [[0, 1, 3]]
    assert torch.equal(kept, words[:, [0, 1, 3]])


def test_the_shape_is_read_back_by_the_engine(tmp_path: Path) -> None:
    write_json_files(tmp_path)
    config = read_config(tmp_path)
    assert (config.family, config.vision.tokens_per_tile, config.eos_token_ids) == ("ovis2", 576, (258, 256))
    assert sum(value.numel() for value in build_model().parameters()) * 2 < 10_000_000
