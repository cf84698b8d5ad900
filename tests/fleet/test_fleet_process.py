"""A managed process is started apart, stopped with a grace, and outlived by nothing."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ovis_fleet.process import ManagedProcess
from ovis_fleet.readiness import PartError, Start

Spawn = Callable[..., ManagedProcess]
Wait = Callable[..., bool]


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """Starts shell scripts as managed processes."""
    started: list[ManagedProcess] = []

    def start(script: str, **options: float) -> ManagedProcess:
        log_path = tmp_path / "logs" / "child.log"
        process = ManagedProcess("child", ["/bin/sh", "-c", script], env={}, log_path=log_path, **options)
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.stop(grace_s=0)


def test_output_of_both_kinds_lands_in_a_private_log(spawn: Spawn) -> None:
    process = spawn("echo out; echo err >&2")

    assert process.wait(5) == 0
    assert process.log_tail().splitlines() == ["out", "err"]
    assert process.log_path.stat().st_mode & 0o777 == 0o600


def test_only_the_last_lines_of_a_long_log_are_quoted(spawn: Spawn) -> None:
    process = spawn("i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done")
    process.wait(10)

    assert process.log_tail(2).splitlines() == ["line 4998", "line 4999"]


def test_a_child_is_in_a_session_of_its_own(spawn: Spawn) -> None:
    process = spawn("exec sleep 60")

    assert process.pid is not None
    assert os.getsid(process.pid) == process.pid != os.getsid(0)


def test_sigterm_is_enough_for_a_child_that_heeds_it(spawn: Spawn, eventually: Wait) -> None:
    process = spawn("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done", grace_s=10)
    assert eventually(lambda: "up" in process.log_tail())

    process.stop()

    assert process.returncode == 3
    assert "bye" in process.log_tail()


def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(spawn: Spawn, eventually: Wait) -> None:
    process = spawn("trap '' TERM; echo up; while :; do sleep 0.05; done", grace_s=0.3)
    assert eventually(lambda: "up" in process.log_tail())
    began = time.monotonic()

    process.stop()

    assert process.returncode == -signal.SIGKILL
    assert 0.3 <= time.monotonic() - began < 5


def test_what_a_child_leaves_running_dies_with_it(spawn: Spawn, eventually: Wait, gone: Callable[[int], bool]) -> None:
    process = spawn("sleep 60 & echo $!")
    process.wait(5)

    orphan = int(process.log_tail())
    assert eventually(lambda: gone(orphan))


def test_a_child_outlives_the_thread_that_started_it(spawn: Spawn) -> None:
    started: list[ManagedProcess] = []
    thread = threading.Thread(target=lambda: started.append(spawn("exec sleep 60")))
    thread.start()
    thread.join()

    assert started[0].wait(0.5) is None
    assert started[0].is_running


def test_signals_that_python_ignores_are_not_ignored_by_its_children(spawn: Spawn) -> None:
    process = spawn("kill -PIPE $$; echo survived")

    assert process.wait(5) == -signal.SIGPIPE


def test_a_restart_makes_a_new_process_with_the_same_log(spawn: Spawn, eventually: Wait) -> None:
    process = spawn("echo up; exec sleep 60")
    assert eventually(lambda: "up" in process.log_tail())
    first = process.pid

    process.restart()

    assert process.pid != first
    assert eventually(lambda: process.log_tail().splitlines() == ["up", "up"])


def test_a_program_that_cannot_be_run_is_named_in_the_error(tmp_path: Path) -> None:
    process = ManagedProcess("ghost", ["/no/such/program"], env={}, log_path=tmp_path / "ghost.log")
    process.start()

    with pytest.raises(PartError, match=r"ghost ended with status 1 .*\n.*cannot run /no/such/program: No such file"):
        Start(process, lambda: False, timeout_s=10).wait()


def test_a_part_that_dies_on_the_way_is_reported_at_once_with_its_last_words(spawn: Spawn) -> None:
    process = spawn("echo the disk is full >&2; exit 7")
    began = time.monotonic()

    with pytest.raises(PartError, match=r"child ended with status 7 before it was ready; its log ends:\nthe disk is"):
        Start(process, lambda: False, timeout_s=60).wait()
    assert time.monotonic() - began < 10


def test_a_part_that_never_gets_ready_is_given_up_at_the_deadline(spawn: Spawn) -> None:
    process = spawn("echo still thinking; exec sleep 60")

    with pytest.raises(PartError, match=r"child was not ready after 1 s; its log ends:\nstill thinking"):
        Start(process, lambda: False, timeout_s=1).wait()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux kills children with their parent")
def test_a_child_dies_when_its_parent_is_killed(
    tmp_path: Path, spawn: Spawn, eventually: Wait, gone: Callable[[int], bool]
) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from ovis_fleet.process import ManagedProcess\n"
        f"child = ManagedProcess('c', ['/bin/sleep', '60'], env={{}}, log_path=Path({str(tmp_path / 'c.log')!r}))\n"
        "child.start()\n"
        "print(child.pid, flush=True)\n"
        "signal.pause()\n"
    )
    parent = spawn(f"exec {sys.executable} {script}")
    assert eventually(lambda: parent.log_tail().strip().isdigit()), parent.log_tail()
    child = int(parent.log_tail())
    assert not gone(child)

    parent.kill()

    assert eventually(lambda: gone(child))
