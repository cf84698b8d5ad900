"""Supervision: what dies is started again, and so is what hangs on the way."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ovis_fleet.parts import Part, PartGroup, PartState
from ovis_fleet.process import ManagedProcess

Wait = Callable[..., bool]

#: Is ready once it has written its file; hangs before that where it was told to, once for each line of ``hang``.
SCRIPT = """
rm -f ready
if [ -s hang ]; then sed -i 1d hang; exec sleep 60; fi
touch ready
exec sleep 60
"""


@pytest.fixture
def states() -> list[PartState]:
    """What the part went through."""
    return []


@pytest.fixture
def group(tmp_path: Path, states: list[PartState]) -> Iterator[PartGroup]:
    """One supervised part that may take a second to start, ready."""
    argv, log_path = ["/bin/sh", "-c", SCRIPT], tmp_path / "part.log"
    process = ManagedProcess("part", argv, env={"PATH": "/bin:/usr/bin"}, log_path=log_path, cwd=tmp_path, grace_s=0.5)
    made = PartGroup(lambda _name, state: states.append(state))
    made.add([Part(process, (tmp_path / "ready").exists, start_timeout_s=1)])
    made.start_all()
    made.watch()
    yield made
    made.stop_all()


def test_a_dead_part_is_started_again(group: PartGroup, states: list[PartState], eventually: Wait) -> None:
    process = group.parts["part"].process
    first = process.pid

    process.kill()

    assert eventually(lambda: states[-2:] == [PartState.STARTING, PartState.READY] and process.pid != first)


def test_a_part_that_hangs_before_it_is_ready_is_killed_and_started_again(
    group: PartGroup, states: list[PartState], eventually: Wait, tmp_path: Path
) -> None:
    (tmp_path / "hang").write_text("once\ntwice\n")
    (tmp_path / "ready").unlink()
    states.clear()

    group.parts["part"].process.kill()

    assert eventually(lambda: PartState.READY in states, timeout_s=20)
    assert states == [PartState.DIED, PartState.STARTING] * 3 + [PartState.READY]
    assert group.parts["part"].process.is_running


def test_a_part_that_was_ready_is_not_killed_for_a_failing_probe(
    group: PartGroup, states: list[PartState], eventually: Wait, tmp_path: Path
) -> None:
    process = group.parts["part"].process
    first = process.pid

    (tmp_path / "ready").unlink()

    assert not eventually(lambda: process.pid != first or states[-1] is not PartState.READY, timeout_s=2)
