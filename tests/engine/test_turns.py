"""Turns between two threads."""

from __future__ import annotations

import threading

import pytest

from ovis_engine.turns import FreeTurns, Turns


def test_two_threads_that_both_want_it_alternate() -> None:
    turns, order, both = Turns(), [], threading.Barrier(2)

    def work(name: str) -> None:
        for step in range(50):
            with turns.turn():
                order.append(name)
                # Inside the first turn the other thread gets in line, and so it goes on.
                if step == 0 and len(order) == 1:
                    other_waits.wait()

    other_waits = threading.Event()
    first = threading.Thread(target=work, args=("one",))
    second = threading.Thread(target=lambda: (both.wait(), work("two")))
    first.start()
    second.start()
    both.wait()
    while len(turns._queue) < 2 and second.is_alive():
        threading.Event().wait(0.001)
    other_waits.set()
    first.join()
    second.join()
    assert sorted(order) == ["one"] * 50 + ["two"] * 50
    assert order[1] == "two"


def test_only_one_thread_is_inside() -> None:
    turns, inside, most = Turns(), [0], [0]

    def work() -> None:
        for _ in range(200):
            with turns.turn():
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_an_error_hands_the_turn_on() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="inside"), turns.turn():
        raise ValueError("inside")
    with turns.turn():
        pass


def test_free_turns_do_not_wait_for_each_other() -> None:
    turns = FreeTurns()
    with turns.turn(), turns.turn():
        pass
