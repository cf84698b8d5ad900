"""The parity command: passes on the fixtures, and fails on any wrong number."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ovis_engine.chat import CHAT_FORMATS
from ovis_engine.config import read_config
from ovis_engine.families import Family
from ovis_engine.prompt import Prompter
from ovis_engine.verify import verify
from ovis_engine.verify_case import read_case
from tests.engine.conftest import read_json

Fixture = dict[str, Any]


def test_all_cases_extremes_and_batches_of_all_models_pass(parity: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "ovis_engine", "verify", str(parity)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.stdout.splitlines()[-2:] == ["tables: 836 of 836", "parity: 175 of 175"]
    assert done.returncode == 0


@pytest.fixture(scope="module")
def excerpt(parity: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small fixture set: a few cases and a batch of one model, and the tables."""
    target = tmp_path_factory.mktemp("excerpt")
    name = "ovis2-tiny"
    shutil.copytree(parity / "models" / name, target / "models" / name)
    (target / "images").symlink_to(parity / "images")
    for file in (f"{name}.npz", "pixels_clip448.npz", "facts.json", "grid_table.json"):
        (target / file).symlink_to(parity / file)
    fixture = read_json(parity / f"{name}.json")
    fixture["batches"] = [batch for batch in fixture["batches"] if batch["id"] == "batch_text"]
    kept = {"tiny_20x20", "truncated", *(row["row"] for row in fixture["batches"][0]["rows"])}
    fixture["cases"] = [case for case in fixture["cases"] if case["id"] in kept]
    fixture["extremes"] = fixture["extremes"][2:3]
    (target / f"{name}.json").write_text(json.dumps(fixture), encoding="utf-8")
    return target


def spoil(path: str, value: Any) -> Callable[[Fixture], None]:
    """Replaces one value of the first case."""

    def change(fixture: Fixture) -> None:
        *steps, last = path.split(".")
        place = fixture["cases"][0]
        for step in steps:
            place = place[step]
        place[int(last) if isinstance(place, list) else last] = value

    return change


def test_an_excerpt_passes(excerpt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(excerpt, "ovis2")
    assert capsys.readouterr().out.splitlines()[-1] == "parity: 7 of 7"


def test_what_is_not_there_to_be_checked_is_a_failure(
    excerpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a fixture whose lists are empty or missing, and no tables
    for file in excerpt.iterdir():
        if file.suffix != ".json":
            (tmp_path / file.name).symlink_to(file)
    fixture = read_json(excerpt / "ovis2-tiny.json")
    del fixture["batches"]
    (tmp_path / "ovis2-tiny.json").write_text(json.dumps(fixture | {"cases": [], "extremes": []}), encoding="utf-8")
    # Then each is told
    assert not verify(tmp_path, "ovis2")
    absent = ("facts.json", "ovis2-tiny/cases", "ovis2-tiny/extremes", "ovis2-tiny/batches", "grid_table.json")
    assert capsys.readouterr().out.splitlines() == [
        *(f"FAILED {name}: is missing or empty" for name in absent),
        "tables: 0 of 2",
        "parity: 0 of 3",
    ]


def test_a_model_without_its_fixture_is_a_failure(
    excerpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in excerpt.iterdir():
        if file.name != "ovis2-tiny.json":
            (tmp_path / file.name).symlink_to(file)
    assert not verify(tmp_path, "ovis2")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "FAILED ovis2-tiny.json: is missing or empty"
    assert lines[-1] == "parity: 0 of 1"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (spoil("prompt", "x"), "prompt is"),
        (spoil("input_ids.3", 5), "input_ids is"),
        (spoil("grids", [[2, 1]]), "grids is"),
        (spoil("image_rgb_sha256.0", "0"), "other RGB bytes"),
        (spoil("pixel_values.sample64.9", 1.5), "pixel_values: off by"),
        (spoil("visual_features.mean", 1.0), "visual_features: mean"),
        (spoil("visual_tokens_argmax_first_atom", [0] * 256), "argmax"),
        (spoil("visual_embeds.sample64.0", 0.5), "visual_embeds: off by"),
        (spoil("inputs_embeds.sample64.0", 0.5), "inputs_embeds: off by"),
        (spoil("first_logits_top20.values.0", 9.0), "first_logits_top20: off by"),
        (spoil("greedy_ids.4", 1), "differ from position 4"),
        (spoil("greedy_text", "x"), "text differs"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_a_wrong_number_fails_with_its_name(
    excerpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Fixture], None], said: str
) -> None:
    for file in excerpt.iterdir():
        if file.suffix != ".json":
            (tmp_path / file.name).symlink_to(file)
    fixture = read_json(excerpt / "ovis2-tiny.json")
    fixture |= {"cases": fixture["cases"][:1], "extremes": [], "batches": []}
    change(fixture)
    (tmp_path / "ovis2-tiny.json").write_text(json.dumps(fixture), encoding="utf-8")
    assert not verify(tmp_path, "ovis2")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "parity: 0 of 3"  # two lists are empty
    assert any(line.startswith("FAILED ovis2-tiny/") and said in line for line in lines)


def test_a_family_is_chosen(excerpt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not verify(excerpt, "ovis1.6")
    assert capsys.readouterr().out.splitlines() == ["tables: 0 of 0", "parity: 0 of 0"]


@pytest.mark.parametrize("family", [None, "ovis2"])
def test_a_directory_without_models_fails(tmp_path: Path, family: Family | None) -> None:
    assert not verify(tmp_path, family)


def test_what_is_too_long_is_cut_as_the_reference_of_the_family_cuts_it(parity: Path) -> None:
    for name in ("ovis2-tiny", "ovis1.6-gemma2-tiny"):
        fixture, directory = read_json(parity / f"{name}.json"), parity / "models" / name
        config = read_config(directory)
        prompter = Prompter.from_checkpoint(directory, CHAT_FORMATS[config.language_model])
        raw = next(case for case in fixture["cases"] if case["id"] == "truncated")
        case = read_case(raw, parity / "images", prompter, config)
        assert case.kept == (slice(-300, None) if raw["truncation_keeps"] == "last" else slice(300))


@pytest.mark.parametrize(
    "arguments", [[], ["verify", "nowhere", "--family", "ovis2"], ["verify", ".", "--family", "x"]]
)
def test_wrong_usage_exits_with_two(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "ovis_engine", *arguments], check=False, capture_output=True)
    assert done.returncode == 2
