"""How long a caller waits: first tokens of new and repeated pictures, and steps while a long prompt comes in."""

from __future__ import annotations

import statistics
import threading
import time
from functools import partial
from itertools import pairwise

from ovis_engine.engine import Engine
from ovis_engine.request import Request
from ovis_engine.text import Delta
from tests.bench.contestants import as_request
from tests.bench.workload import BenchRequest, Workload

#: Series of pictures and prompts that no other measurement uses.
FIRST_TOKEN_SERIES, STALL_SERIES = 500, 600

#: Tokens of each answer whose first one is timed. The library keeps no block of a request that ends with its prompt's
#: step, so that an answer of one token would never find its picture's.
ANSWER_TOKENS = 8


def repeat_ttft_ratio(engine: Engine, workload: Workload) -> float:
    """Time to the first token of a question about a known picture, over that of one about a new picture."""
    latency, prompts = workload.content["latency"], workload.content["prompts"]
    new, repeated = [], []
    for index in range(latency["pictures"]):
        picture = workload.picture(FIRST_TOKEN_SERIES, index)
        new.append(_first_token_s(engine, BenchRequest(picture, prompts[0], ANSWER_TOKENS)))
        repeated.append(_first_token_s(engine, BenchRequest(picture, prompts[1], ANSWER_TOKENS)))
    new_s, repeated_s = statistics.median(new), statistics.median(repeated)
    print(f"{'first token':<24} new picture {new_s * 1000:.0f} ms, repeated picture {repeated_s * 1000:.0f} ms")
    return repeated_s / new_s


def max_stall_ratio(engine: Engine, workload: Workload) -> float:
    """Longest step of 16 decoding rows while a long prompt comes in, over their median step before."""
    ratios = [_stall_ratio(engine, workload, trial) for trial in range(workload.content["latency"]["trials"])]
    return statistics.median(ratios)


def _first_token_s(engine: Engine, request: BenchRequest) -> float:
    ready, arrivals = as_request(request, engine.side), []
    started = time.perf_counter()
    engine.submit(ready, lambda _: arrivals.append(time.perf_counter())).result()
    return float(arrivals[0] - started)


class _StepTimes:
    """Notes when each step's first token arrives. Called on the engine's thread."""

    def __init__(self, engine: Engine, num_rows: int) -> None:
        self._engine = engine
        self._num_tokens = [0] * num_rows
        self.of_step: dict[int, float] = {}
        self.all_decoding = threading.Event()

    def note(self, row: int, delta: Delta) -> None:
        self.of_step.setdefault(self._engine.stats().steps, time.perf_counter())
        self._num_tokens[row] = delta.num_output_tokens
        # The median needs steps in which nothing but these rows ran.
        if min(self._num_tokens) >= 40:
            self.all_decoding.set()


def _stall_ratio(engine: Engine, workload: Workload, trial: int) -> float:
    latency, prompts = workload.content["latency"], workload.content["prompts"]
    long_request = Request(
        prompt=workload.long_prompt(engine.prompter.tokenizer, STALL_SERIES + trial), max_new_tokens=1, ignore_eos=True
    )
    times, futures = _StepTimes(engine, latency["rows"]), []
    for row in range(latency["rows"]):
        request = Request(
            prompt=f"{trial} {row} {prompts[row % len(prompts)]}",
            max_new_tokens=latency["row_output_tokens"],
            ignore_eos=True,
        )
        futures.append(engine.submit(request, partial(times.note, row)))
    times.all_decoding.wait()
    arrived = time.perf_counter()
    engine.submit(long_request).result()
    answered = time.perf_counter()
    for future in futures:
        future.result()
    steps = list(pairwise(times.of_step.values()))
    # The first steps take in the rows' own prompts.
    before = [end - start for start, end in steps[5:] if end < arrived]
    during = [end - start for start, end in steps if end > arrived and start < answered]
    step_s, worst_s = statistics.median(before), max(during)
    print(f"{'long prompt':<24} median step {step_s * 1000:.0f} ms, worst of {len(during)} {worst_s * 1000:.0f} ms")
    return worst_s / step_s
