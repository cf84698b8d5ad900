"""Host memory while a sharded checkpoint loads, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.engine.original import write_original
from tests.engine.real_configs import real_config

MIB = 1 << 20
SHARD_BYTES = 60 * MIB

#: Prints the peak of resident memory that loading adds, in bytes. The kernel's mark is set back before.
LOADER = """
import re, sys
from pathlib import Path
import torch
from ovis_engine.checkpoint import load_model

def status(field):
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\\s+(\\d+) kB", text)[1]) * 1024

# The first load brings in what the library imports late.
load_model(Path(sys.argv[1]), device=torch.device("cpu"), dtype=torch.float32)
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
model = load_model(Path(sys.argv[2]), device=torch.device("cpu"), dtype=torch.bfloat16)
print(status("VmHWM") - before, sum(parameter.nbytes for parameter in model.parameters()))
"""


def cut_down_config() -> dict[str, object]:
    """Some 165 M parameters: Ovis2-1B with fewer layers and smaller vocabularies."""
    config = real_config("ovis2-1b")
    config["llm_config"] |= {"num_hidden_layers": 4, "vocab_size": 16384}
    visual = config["visual_tokenizer_config"]
    visual["vocab_size"] = 8192
    visual["backbone_config"] |= {"num_hidden_layers": 4}
    return config


def shard(directory: Path) -> int:
    """Cuts the weights into shards in bfloat16; the size of the largest in bytes."""
    whole = directory / "model.safetensors"
    shards: list[dict[str, torch.Tensor]] = [{}]
    with safe_open(whole, framework="pt") as tensors:
        for name in sorted(tensors.keys()):
            if sum(tensor.nbytes for tensor in shards[-1].values()) > SHARD_BYTES:
                shards.append({})
            shards[-1][name] = tensors.get_tensor(name).bfloat16()
    weight_map = {}
    for index, held in enumerate(shards):
        save_file(held, directory / f"model-{index}.safetensors")
        weight_map |= dict.fromkeys(held, f"model-{index}.safetensors")
    whole.unlink()
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    return max(file.stat().st_size for file in directory.glob("model-*.safetensors"))


def test_loading_takes_little_more_than_the_model_and_the_largest_shard(tmp_path: Path, tiny: Path) -> None:
    write_original(tmp_path / "model", cut_down_config(), tiny)
    largest = shard(tmp_path / "model")
    command = [sys.executable, "-c", LOADER, str(tiny), str(tmp_path / "model")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, model = map(int, done.stdout.split())
    ratio = peak / (largest + model)
    print(
        f"peak {peak / MIB:.0f} MiB, model {model / MIB:.0f} MiB, largest shard {largest / MIB:.0f} MiB: "
        f"{ratio:.2f} x their sum"
    )
    assert model > 250 * MIB
    assert ratio < 1.3
