"""``python -m tests.bench fleet``: the whole path, HTTP to result in S3, against the engine fed directly in process.

Both start from the same encoded files and have the same engine settings. The engine's threads have the first core to
themselves in both, as only one of the two works at a time; everything else, tiling included, shares the others.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import psutil
from PIL import Image

from ovis_engine import Engine, EngineConfig, Request, tile_image
from ovis_fleet import Client
from ovis_fleet.stack import LocalStack, StackConfig
from tests.bench.workload import Workload, write_checkpoint

#: The catalogue's name under which the random model is served.
MODEL = "ovis2-reader"

#: The engine's settings in both.
ROWS, KV_CACHE_TOKENS, MAX_BATCH_TOKENS = 16, 32_768, 2_048

#: Callers at once.
_THREADS = 8

#: Requests of the warm-up, after which the computing threads are told by their CPU time.
_WARM_UP = 8

#: Threads of an engine that compute, in turn: the vision tower's and the decode loop's.
_COMPUTING_THREADS = 2


@dataclass(frozen=True)
class Job:
    """One request before anything is decoded."""

    png: bytes
    prompt: str
    max_new_tokens: int


@dataclass(frozen=True)
class Run:
    """One run of the workload."""

    seconds: float
    output_tokens: int

    @property
    def tokens_per_s(self) -> float:
        """Output tokens per second over the whole run."""
        return self.output_tokens / self.seconds


def encoded_jobs(workload: Workload, series: int) -> list[Job]:
    """The workload's requests as files; every series has pictures of its own."""
    jobs = []
    for request in workload.requests(series):
        buffer = io.BytesIO()
        request.picture.save(buffer, "PNG")
        jobs.append(Job(buffer.getvalue(), request.prompt, request.output_tokens))
    return jobs


class Side(Protocol):
    """One of the two that are compared."""

    @property
    def pid(self) -> int:
        """The process that computes."""
        ...

    def run(self, jobs: Sequence[Job]) -> int:
        """Answer all jobs; reply the number of output tokens."""
        ...


class EngineSide:
    """The engine in this process: decode, tile, submit, wait."""

    def __init__(self, engine: Engine) -> None:
        self.pid = os.getpid()
        self._engine = engine

    def run(self, jobs: Sequence[Job]) -> int:
        """As many at once as a worker takes."""
        with ThreadPoolExecutor(2 * ROWS) as threads:
            return sum(threads.map(self._one, jobs))

    def _one(self, job: Job) -> int:
        tiles = tile_image(Image.open(io.BytesIO(job.png)), side=self._engine.side, max_partition=1)
        request = Request(prompt=job.prompt, images=(tiles,), max_new_tokens=job.max_new_tokens)
        return self._engine.submit(request).result().num_output_tokens


class FleetSide:
    """The same over HTTP, until every result lies in S3 and every task has ended."""

    def __init__(self, stack: LocalStack, client: Client, http: httpx.Client) -> None:
        self.pid = stack.parts["model"].pid or 0
        self._client = client
        self._http = http

    def run(self, jobs: Sequence[Job]) -> int:
        """Hand everything in, then wait."""
        with ThreadPoolExecutor(_THREADS) as threads:
            ids = list(threads.map(self._submit, jobs))
        tasks = [self._client.wait(task, 900) for task in ids]
        assert {task.status for task in tasks} == {"succeeded"}, tasks[0]
        return sum(int(task.usage.output_tokens) for task in tasks if task.usage)

    def _submit(self, job: Job) -> str:
        answer = self._http.post("/v1/tasks", json=_body(job))
        answer.raise_for_status()
        return str(answer.json()["id"])


def _engine_config(workload: Workload) -> EngineConfig:
    return EngineConfig(
        dtype=workload.dtype,
        max_running_requests=ROWS,
        kv_cache_tokens=KV_CACHE_TOKENS,
        max_batch_tokens=MAX_BATCH_TOKENS,
        num_threads=1,
    )


def _stack_config(workload: Workload, checkpoint: Path) -> StackConfig:
    settings = {
        "OVIS_ENGINE_ROWS": str(ROWS),
        "OVIS_ENGINE_BACKLOG": str(ROWS),
        "OVIS_ENGINE_KV_CACHE_TOKENS": str(KV_CACHE_TOKENS),
        "OVIS_ENGINE_MAX_BATCH_TOKENS": str(MAX_BATCH_TOKENS),
        "OVIS_ENGINE_THREADS": "1",
        "OVIS_ENGINE_DTYPE": workload.dtype,
    }
    return StackConfig(model=MODEL, model_path=checkpoint, extra_env=settings)


def _body(job: Job) -> dict[str, Any]:
    return {
        "kind": "image",
        "model": MODEL,
        "input": {"base64": base64.b64encode(job.png).decode(), "media_type": "image/png"},
        "prompt": job.prompt,
        # A random model's answers are doubtful, and the engine alone gives none a second run.
        "options": {"max_new_tokens": job.max_new_tokens, "second_run": False},
    }


def compare(workload: Workload, checkpoint: Path, rounds: int) -> tuple[list[Run], list[Run]]:
    """Runs of the engine alone and of the whole path, in turn, so that a busy machine slows both."""
    cores = sorted(os.sched_getaffinity(0))
    with (
        LocalStack(_stack_config(workload, checkpoint)) as stack,
        Client(stack.url, stack.api_key) as client,
        httpx.Client(base_url=stack.url, headers={"Authorization": f"Bearer {stack.api_key}"}, timeout=60) as http,
        Engine.from_pretrained(checkpoint, _engine_config(workload)) as engine,
    ):
        sides: tuple[Side, Side] = (EngineSide(engine), FleetSide(stack, client, http))
        for side in sides:
            side.run(encoded_jobs(workload, 0)[:_WARM_UP])
        share_cores([side.pid for side in sides], cores)
        runs: tuple[list[Run], list[Run]] = ([], [])
        for series in range(1, rounds + 1):
            jobs = encoded_jobs(workload, series)
            for side, done in zip(sides, runs, strict=True):
                start = time.monotonic()
                tokens = side.run(jobs)
                done.append(Run(time.monotonic() - start, tokens))
            assert runs[0][-1].output_tokens == runs[1][-1].output_tokens, "both do the same work"
        return runs


def share_cores(pids: Sequence[int], cores: Sequence[int]) -> None:
    """The computing threads of each of the processes get the first core; all other threads of ours get the rest."""
    first, rest = cores[0], set(cores[1:]) or set(cores)
    own = psutil.Process()
    for process in [own, *own.children(recursive=True)]:
        for thread in process.threads():
            os.sched_setaffinity(thread.id, rest)
    for pid in pids:
        for thread in sorted(psutil.Process(pid).threads(), key=lambda thread: thread.user_time)[-_COMPUTING_THREADS:]:
            os.sched_setaffinity(thread.id, {first})


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table and a line of JSON; exit code 1 where the path costs more than a tenth."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench fleet", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    workload = Workload.read()
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = Path(directory) / "model"
        write_checkpoint(workload, checkpoint)
        engine, fleet = compare(workload, checkpoint, args.rounds)
    # The best of each: what others do on the machine only ever slows a run down.
    speeds = [round(max(run.tokens_per_s for run in runs), 1) for runs in (engine, fleet)]
    ratio = round(speeds[1] / speeds[0], 3)
    for name, runs in (("engine alone", engine), ("whole path", fleet)):
        print(f"{name:<13}" + "  ".join(f"{run.tokens_per_s:6.1f} tok/s in {run.seconds:5.1f} s" for run in runs))
    print(json.dumps({"fleet_over_engine": ratio, **dict(zip(("engine_tok_s", "fleet_tok_s"), speeds, strict=True))}))
    return 0 if ratio >= 0.9 else 1


if __name__ == "__main__":
    sys.exit(main())
