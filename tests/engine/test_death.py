"""A thread of the engine dies: every future fails, the owner is told once, nothing more is taken in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from ovis_engine.checkpoint import OvisModel
from ovis_engine.engine import Engine
from ovis_engine.errors import EngineDeadError
from ovis_engine.prompt import Prompter
from ovis_engine.request import Request
from tests.engine.conftest import SMALL, picture

TEXT = Request("Go on.", max_new_tokens=500, ignore_eos=True)


def break_decoding(model: OvisModel) -> torch.nn.Module:
    layer: torch.nn.Module = model.language_model.model.layers[1]
    return layer


def break_vision(model: OvisModel) -> torch.nn.Module:
    return model.encoder.tower


@pytest.mark.parametrize("broken", [break_decoding, break_vision])
def test_a_dead_thread_fails_every_future_and_tells_the_owner_once(
    tiny_model: OvisModel, tiny_prompter: Prompter, broken: Callable[[OvisModel], torch.nn.Module]
) -> None:
    # Given an engine whose model is about to fail
    failing = threading.Event()

    def fail(_module: torch.nn.Module, _inputs: Any) -> None:
        assert failing.wait(30)
        raise RuntimeError("the device is gone")

    broken(tiny_model).register_forward_pre_hook(fail)
    deaths: list[BaseException] = []
    told = threading.Event()

    def on_death(fault: BaseException) -> None:
        deaths.append(fault)
        told.set()

    engine = Engine(tiny_model, tiny_prompter, SMALL, on_death)
    futures = [engine.submit(TEXT), engine.submit(Request("What?", (picture("tiny20.png"),)))]
    # When it fails while requests run and wait
    failing.set()
    # Then all of them fail, with the cause
    for future in futures:
        error = future.exception(30)
        assert isinstance(error, EngineDeadError)
    assert told.wait(30)
    # And later ones are refused
    with pytest.raises(EngineDeadError):
        engine.submit(Request("Hello."))
    engine.close()
    assert [str(fault) for fault in deaths] == ["the device is gone"]


def limit_tiles(model: OvisModel, most: int) -> list[int]:
    """Makes the tower run out of memory with more tiles than these; lists the sizes of all its runs."""
    runs: list[int] = []

    def fail(_module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        runs.append(len(inputs[0]))
        if runs[-1] > most:
            raise torch.OutOfMemoryError("out of memory")

    model.encoder.tower.register_forward_pre_hook(fail)
    return runs


def test_a_tower_that_runs_out_of_memory_takes_fewer_tiles_and_goes_on(
    tiny_model: OvisModel, tiny_prompter: Prompter, engine: Engine
) -> None:
    request = Request("What?", (picture("sq896.png"),), max_new_tokens=4)
    expected = engine.submit(request).result(30).token_ids
    runs = limit_tiles(tiny_model, 2)
    with Engine(tiny_model, tiny_prompter, replace(SMALL, vision_batch_tiles=5)) as limited:
        assert limited.submit(request).result(30).token_ids == expected
    assert runs[0] == 5
    assert set(runs[1:]) <= {1, 2}
    assert sum(runs[1:]) == len(request.images[0].tiles)


def test_a_tower_without_memory_for_one_tile_is_a_death(tiny_model: OvisModel, tiny_prompter: Prompter) -> None:
    limit_tiles(tiny_model, 0)
    deaths: list[BaseException] = []
    with Engine(tiny_model, tiny_prompter, SMALL, deaths.append) as limited:
        error = limited.submit(Request("What?", (picture("tiny20.png"),))).exception(30)
    assert isinstance(error, EngineDeadError)
    assert isinstance(deaths[0], torch.OutOfMemoryError)


def test_closing_is_no_death(tiny_model: OvisModel, tiny_prompter: Prompter) -> None:
    deaths: list[BaseException] = []
    with Engine(tiny_model, tiny_prompter, SMALL, deaths.append) as engine:
        engine.submit(TEXT)
    assert deaths == []
