"""`OvisRunner` gives what the original's runner gives, from the facts recorded with the parity fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ovis_engine import Engine, OvisRunner, Partition, Request, RequestError, RunnerOptions, Sampling, tile_image
from ovis_engine.errors import LengthError
from ovis_engine.prompt import CHAIN_OF_THOUGHT_SUFFIX
from tests.engine.conftest import PARITY, SMALL, TINY, picture, read_json

IMAGES = PARITY / "images"
SHIP = IMAGES / "tiny20.png"
EIGHT = RunnerOptions(max_new_tokens=8)
#: Model of the fixtures and the branch of the original whose facts hold for it.
FACTS = {"ovis2-tiny": "v2.0", "ovis1.6-gemma2-tiny": "v1.6", "ovis1.6-llama3.2-tiny": "v1.6"}


@pytest.fixture(scope="module")
def runner() -> Iterator[OvisRunner]:
    with OvisRunner(TINY, EIGHT, SMALL) as started:
        yield started


def opened(name: str) -> Image.Image:
    with Image.open(IMAGES / name) as image:
        image.load()
        return image


@pytest.mark.parametrize("model", FACTS)
def test_the_original_runners_answers_are_given(model: str) -> None:
    facts: list[dict[str, Any]] = read_json(PARITY / "facts.json")["facts"][f"{model}@{FACTS[model]}"]["runner"]
    ship = opened("tiny20.png")
    inputs: dict[str, list[Any]] = {
        "image,text": [ship, "What?"],
        "text,image": ["What?", ship],
        "image,image,text": [ship, opened("tiny20.png"), "Which?"],
        "text,image,text": ["See ", ship, "What?"],
        "text with literal <image>": ["a<image>b"],
        "None,text": [None, "Hi"],
    }
    # The second picture of the pair was not recorded: its answer is not compared.
    with OvisRunner(PARITY / "models" / model, EIGHT, SMALL) as runner:
        results = runner.run_batch(list(inputs.values()))
        for fact, result in zip(facts, results, strict=False):
            assert fact["ok"]
            assert (result.prompt, result.prompt_tokens) == (fact["prompt"], fact["prompt_tokens"])
            assert result.total_tokens == fact["total_tokens"]
            if fact["inputs"] != "image,image,text":
                assert result.output == fact["output"], fact["inputs"]
        assert not facts[-1]["ok"]
        with pytest.raises(RequestError, match="not int"):
            runner.run([3, "What?"])  # type: ignore[list-item]


def test_paths_and_pictures_are_the_same(runner: OvisRunner) -> None:
    by_path, by_picture = runner.run_batch([[SHIP, "What?"], [opened("tiny20.png"), "What?"]])
    assert by_path.output == by_picture.output
    assert by_path.num_prompt_tokens == by_path.prompt_tokens + 255
    assert by_path.num_output_tokens == 8
    assert by_path.finish_reason == "length"


def test_one_picture_is_cut_finely_several_coarsely(runner: OvisRunner) -> None:
    one = runner.run([IMAGES / "wide.png", "What?"])
    two = runner.run([IMAGES / "wide.png", IMAGES / "sq896.png", "Which?"])
    assert (one.partition, two.partition) == (Partition(9, 9), Partition(4, 4))
    assert one.completion.num_tiles == len(picture("wide.png", 9).tiles)
    assert two.completion.num_tiles == len(picture("wide.png", 4).tiles) + len(picture("sq896.png", 4).tiles)


def test_frames_are_one_tile_each(runner: OvisRunner) -> None:
    frames = [opened(f"frame{index}.jpg") for index in range(3)]
    result = runner.run_video(frames, "What happens?")
    assert result.completion.num_tiles == 3
    assert result.prompt.count("<image>\n") == 3
    tiled = [tile_image(frame, side=448, max_partition=1) for frame in frames]
    direct = runner.engine.submit(replace(Request.video("What happens?", tiled), max_new_tokens=8)).result(30)
    assert result.output == direct.text


def test_chain_of_thought_appends_its_request(runner: OvisRunner) -> None:
    result = runner.run(["How many?"], replace(EIGHT, chain_of_thought=True))
    assert f"How many?{CHAIN_OF_THOUGHT_SUFFIX}<|im_end|>" in result.prompt


def test_options_of_a_run_win_over_the_runners(runner: OvisRunner) -> None:
    sampled = RunnerOptions(max_new_tokens=5, sampling=Sampling(temperature=1.0, seed=4))
    first, second = (runner.run(["Go on."], sampled) for _ in range(2))
    assert first.output == second.output
    assert first.num_output_tokens <= 5


def test_what_does_not_fit_is_refused_or_cut_more_coarsely_and_says_so() -> None:
    with Engine.from_pretrained(TINY, replace(SMALL, kv_cache_tokens=640, page_size=16)) as engine:
        runner = OvisRunner(engine, EIGHT)
        inputs = [IMAGES / "sq896.png", "What?"]
        with pytest.raises(LengthError):
            runner.run(inputs)
        result = runner.run(inputs, replace(EIGHT, allow_smaller_partition=True))
        assert result.partition is not None
        assert result.partition.is_reduced
        runner.close()
        assert engine.submit(Request("Still open?", max_new_tokens=1)).result(30).num_output_tokens == 1


def test_a_batch_with_a_bad_entry_runs_nothing(runner: OvisRunner) -> None:
    before = runner.engine.stats().output_tokens
    with pytest.raises(LengthError):
        runner.run_batch([["Fine."], ["x" * 40000]])
    assert runner.engine.stats().output_tokens == before


def test_a_missing_picture_is_the_callers_error(runner: OvisRunner, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        runner.run([tmp_path / "none.png", "What?"])
