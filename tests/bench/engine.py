"""``python -m tests.bench engine``: the engine against the model card's ways of running Ovis, and against vLLM.

Every contestant answers the whole workload in turn, round after round, on one core, each with pictures that it has not
seen. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from ovis_engine.request import EngineConfig
from tests.bench.contestants import Contestant, Ours, StaticBatches
from tests.bench.latency import max_stall_ratio, repeat_ttft_ratio
from tests.bench.peers import CACHE
from tests.bench.vllm_process import Vllm
from tests.bench.workload import Workload, write_checkpoint

#: Requests that each contestant answers before the clock runs: memory pools, compiled kernels, page cache.
NUM_WARM_UP = 4

#: Ratio in the last line -> whom ours is compared with.
RATIOS = {
    "over_one_by_one": "one by one",
    "over_static8": "static batches of 8",
    "over_static16": "static batches of 16",
    "over_vllm_eager": "vLLM, eager",
    "over_vllm_compiled": "vLLM, compiled",
}


def main(arguments: Sequence[str]) -> None:
    """Measures and prints a table and a last line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench engine", description=__doc__)
    parser.add_argument("--peer", choices=["vllm"], help="also measure vLLM's CPU build (make peers)")
    parser.add_argument("--rounds", type=int, help="instead of the workload's")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="which core all run on")
    options = parser.parse_args(arguments)
    # Threads that are started later inherit it, processes too.
    os.sched_setaffinity(0, {options.core})
    torch.set_num_threads(1)
    workload = Workload.read()
    checkpoint = CACHE / "engine-model"
    num_parameters = write_checkpoint(workload, checkpoint)
    print(f"{num_parameters / 1e6:.1f} M parameters, {workload.dtype}, {workload.num_output_tokens} output tokens")
    with ExitStack() as stack:
        contestants = _enter(stack, workload, checkpoint, options.peer)
        seconds = _measure(contestants, workload, options.rounds or workload.content["rounds"])
        ours = contestants["ours"]
        assert isinstance(ours, Ours)
        ratios = _report(seconds, workload.num_output_tokens)
        ratios["repeat_ttft_ratio"] = repeat_ttft_ratio(ours.engine, workload)
        ratios["max_stall_ratio"] = max_stall_ratio(ours.engine, workload)
    print(json.dumps({name: None if ratio is None else round(ratio, 3) for name, ratio in ratios.items()}))


def _enter(stack: ExitStack, workload: Workload, checkpoint: Path, peer: str | None) -> dict[str, Contestant]:
    """Starts everyone; all stay loaded, and idle while others run."""
    config = EngineConfig(dtype=workload.dtype, num_threads=1, **workload.content["engine"])
    contestants: dict[str, Contestant] = {
        "one by one": StaticBatches(checkpoint, workload.dtype, 1),
        "static batches of 8": StaticBatches(checkpoint, workload.dtype, 8),
        "static batches of 16": StaticBatches(checkpoint, workload.dtype, 16),
        "ours": Ours(checkpoint, config),
    }
    if peer == "vllm":
        contestants |= {f"vLLM, {mode}": Vllm(checkpoint, workload.dtype, mode) for mode in ("eager", "compiled")}
    return {name: stack.enter_context(contestant) for name, contestant in contestants.items()}


def _measure(contestants: dict[str, Contestant], workload: Workload, rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant in each round; every run has a series of pictures of its own."""
    for contestant in contestants.values():
        contestant.run(workload.requests(0)[:NUM_WARM_UP])
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for series in range(1, rounds + 1):
        requests = workload.requests(series)
        for name, contestant in contestants.items():
            started = time.perf_counter()
            tokens = contestant.run(requests)
            seconds[name].append(time.perf_counter() - started)
            assert [len(row) for row in tokens] == [request.output_tokens for request in requests]
            print(f"round {series}: {name} {seconds[name][-1]:.1f} s", file=sys.stderr, flush=True)
    return seconds


def _report(seconds: dict[str, list[float]], num_tokens: int) -> dict[str, float | None]:
    """Prints medians; returns how many times the throughput of each other contestant ours has."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        runs = ", ".join(f"{value:.1f}" for value in seconds[name])
        print(f"{name:<24} {num_tokens / median:6.1f} tok/s   median {median:6.1f} s of {runs}")
    return {ratio: medians[name] / medians["ours"] if name in medians else None for ratio, name in RATIOS.items()}
