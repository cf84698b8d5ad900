"""The bundled model read with, in a process of its own that leaves out torch's compiler, and what that leaves out."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from ovis_engine import bundled_model_path
from ovis_engine.without_compiler import PUT_OFF, leave_out_compiler

SAMPLES = bundled_model_path() / "samples"
TRUTH = json.loads((SAMPLES / "samples.json").read_text())["receipt.png"]["truth"]

#: What nothing of the engine's may load, besides the modules that are put off.
BANISHED = ("sympy", "mpmath", "torch._inductor", "torch._decomp", "torch._refs", "torch.distributed.tensor")

PROGRAM = """
import json, sys
from ovis_engine.without_compiler import PUT_OFF, leave_out_compiler

in_time = leave_out_compiler()
from PIL import Image
from ovis_engine import Engine, EngineConfig, JsonSchema, Request, Sampling, bundled_model_path, tile_image

def put_off():
    return [name for name in PUT_OFF if type(sys.modules[name]).__name__ == "_PutOff"]

config = EngineConfig(dtype="float32", kv_cache_tokens=4096, visual_pool_rows=4096, num_threads=1)
with Engine.from_pretrained(bundled_model_path(), config) as engine:
    receipt = Image.open(bundled_model_path() / "samples" / "receipt.png")
    picture = tile_image(receipt, side=engine.side, max_partition=1)
    plain = Request("Read all the text in the image.", images=(picture,))
    sampled = Request("Go on.", max_new_tokens=4, sampling=Sampling(temperature=1.0, seed=3, top_p=0.9))
    schema = JsonSchema({"type": "boolean"})
    asked = [engine.submit(request) for request in (plain, sampled, Request("Go on.", constraint=schema))]
    texts = [future.result().text for future in asked]
told = {"in_time": in_time, "texts": texts, "modules": sorted(sys.modules), "put_off": put_off()}

import torch
twice = torch.compile(lambda value: value * 2, backend="aot_eager")
told |= {"compiled": twice(torch.ones(2)).tolist(), "put_off_after": put_off()}
told |= {"metas": "torch._decomp" in sys.modules, "distributed": torch.distributed.is_available()}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What the process tells of itself after it has read a picture, and after it has used the compiler."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_engine_reads_as_ever_without_the_compiler(told: dict[str, Any]) -> None:
    assert told["in_time"]
    assert told["texts"][0].strip() == TRUTH
    assert json.loads(told["texts"][2]) in (True, False)


def test_neither_the_compiler_nor_what_comes_with_it_is_loaded(told: dict[str, Any]) -> None:
    loaded = [name for name in told["modules"] if name.startswith(BANISHED)]
    assert loaded == [], "a new release of torch or transformers asks the compiler for more than marks"
    assert told["put_off"] == list(PUT_OFF)


def test_the_compiler_works_once_somebody_asks_for_it(told: dict[str, Any]) -> None:
    assert told["compiled"] == [2.0, 2.0]
    assert (told["put_off_after"], told["metas"]) == ([], True)
    assert told["distributed"], "only the library was told that there is none"


def test_nothing_changes_where_torch_is_loaded_already() -> None:
    import torch  # noqa: F401

    finders = list(sys.meta_path)
    assert not leave_out_compiler()
    assert sys.meta_path == finders
