"""The pure parts: what becomes of an error, and when work stands still."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import ExitStack

import pytest

from contract.errors import (
    AttemptsExhausted,
    BlobsUnavailable,
    CallerError,
    EngineDied,
    FleetError,
    InternalError,
    MediaProcessDied,
    ServiceError,
    StoreUnavailable,
    all_errors,
)
from workers.job_watch import JobWatch
from workers.liveness import Look, StallWatch, watch_progress
from workers.retry_policy import LONGEST_REST_S, Fail, TryAgain, decide


def concrete(base: type[FleetError]) -> list[type[FleetError]]:
    return [error for error in all_errors().values() if issubclass(error, base)]


@pytest.mark.parametrize("error", concrete(CallerError), ids=lambda error: error.code)
def test_the_callers_fault_fails_at_once(error: type[FleetError]) -> None:
    assert decide(error("no"), claims=1, jitter=0.5) == Fail()


@pytest.mark.parametrize("error", concrete(ServiceError), ids=lambda error: error.code)
def test_our_fault_is_tried_again(error: type[FleetError]) -> None:
    assert isinstance(decide(error("no"), claims=1, jitter=0.5), TryAgain)


@pytest.mark.parametrize("error", [StoreUnavailable, BlobsUnavailable], ids=lambda error: error.code)
def test_an_outage_uses_up_no_try(error: type[FleetError]) -> None:
    decision = decide(error("away"), claims=1, jitter=0.5)
    assert isinstance(decision, TryAgain)
    assert not decision.counts


@pytest.mark.parametrize("error", [EngineDied, MediaProcessDied, InternalError, AttemptsExhausted])
def test_what_may_be_the_parts_fault_uses_up_a_try(error: type[FleetError]) -> None:
    decision = decide(error("died"), claims=1, jitter=0.5)
    assert isinstance(decision, TryAgain)
    assert decision.counts


def rests(jitter: float) -> list[float]:
    decisions = [decide(BlobsUnavailable("away"), claims=claims, jitter=jitter) for claims in range(1, 40)]
    return [decision.rest_s for decision in decisions if isinstance(decision, TryAgain)]


def test_rests_grow_to_a_limit_and_jitter_only_shortens_them() -> None:
    longest, shortest = rests(0.999999), rests(0.0)
    assert longest == sorted(longest)
    assert longest[-1] <= LONGEST_REST_S
    assert all(long / 2 <= short + 1e-3 <= long + 1e-3 for short, long in zip(shortest, longest, strict=True))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_work_that_stands_still_for_too_long_has_stalled() -> None:
    clock = Clock()
    watch = StallWatch(10, clock)
    assert not watch.stalled(Look(has_work=True, progress=1))
    clock.now = 9
    assert not watch.stalled(Look(has_work=True, progress=1))
    clock.now = 10
    assert watch.stalled(Look(has_work=True, progress=1))


def test_progress_and_idleness_start_the_clock_anew() -> None:
    clock = Clock()
    watch = StallWatch(10, clock)
    for now, look in enumerate([Look(True, 1), Look(True, 2), Look(False, 2), Look(True, 2)]):
        clock.now = now * 9.0
        assert not watch.stalled(look)
    clock.now += 9
    assert not watch.stalled(Look(True, 3))


def test_a_job_that_stands_still_is_seen_among_others_that_go_on() -> None:
    clock = Clock()
    jobs, watch = JobWatch(clock), StallWatch(10, clock)
    assert not watch.stalled(jobs.look())
    with jobs.job(), jobs.job() as step:
        for now in range(1, 10):
            clock.now = now
            step()
            assert not watch.stalled(jobs.look())
        clock.now = 11
        step()
        assert watch.stalled(jobs.look())
    assert not watch.stalled(jobs.look())


def test_jobs_that_take_turns_are_no_stall() -> None:
    clock = Clock()
    jobs, watch = JobWatch(clock), StallWatch(10, clock)
    with jobs.job() as one, jobs.job() as other:
        for now in range(0, 100, 7):
            clock.now = now
            (one if now % 2 else other)()
            assert not watch.stalled(jobs.look())


def test_a_step_after_the_end_of_its_job_is_no_job() -> None:
    jobs = JobWatch()
    with jobs.job() as step:
        pass
    step()
    assert not jobs.look().has_work


def test_jobs_begin_and_end_while_others_are_looked_at() -> None:
    def clock() -> float:
        time.sleep(0)  # lets a look begin
        return 0.0

    jobs, closing, switch_s = JobWatch(clock), threading.Event(), sys.getswitchinterval()

    def come_and_go() -> None:
        while not closing.is_set():
            with jobs.job() as step, jobs.job():
                step()

    threads = [threading.Thread(target=come_and_go) for _ in range(2)]
    sys.setswitchinterval(1e-6)
    try:
        with ExitStack() as standing:
            for _ in range(500):  # a look takes a while, so that the others come and go meanwhile
                standing.enter_context(jobs.job())
            for thread in threads:
                thread.start()
            for _ in range(2000):
                jobs.look()
    finally:
        sys.setswitchinterval(switch_s)
        closing.set()
        for thread in threads:
            thread.join()
    assert not jobs.look().has_work


def test_a_look_that_breaks_does_not_end_the_watch() -> None:
    stalled, seen, closing = threading.Event(), list[str](), threading.Event()

    def broken() -> Look:
        raise RuntimeError("changed size during iteration")

    def on_stall(what: str) -> None:
        seen.append(what)
        stalled.set()

    looks = {"broken": broken, "jobs": lambda: Look(True, 1)}
    thread = watch_progress(looks, stall_s=0.5, on_stall=on_stall, closing=closing)
    assert stalled.wait(60)
    closing.set()
    thread.join()
    assert set(seen) == {"jobs"}


def test_idle_forever_is_no_stall() -> None:
    clock = Clock()
    watch = StallWatch(10, clock)
    for now in range(0, 1000, 100):
        clock.now = now
        assert not watch.stalled(Look(has_work=False, progress=1))
