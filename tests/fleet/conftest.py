"""Real parts and a real HTTP server for the tests of ovis_fleet."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from ovis_fleet import Client
from ovis_fleet.parts import PartState
from ovis_fleet.stack import LocalStack, StackConfig
from tests.fleet.answering import KEY, Server
from tests.fleet.both_clients import Open, open_client


def is_gone(pid: int) -> bool:
    """A process that nobody has reaped yet has ended all the same."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until(holds: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    """Waits until something holds; returns whether it came to."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """Tells whether a process has ended."""
    return is_gone


@pytest.fixture
def eventually() -> Callable[..., bool]:
    """Waits until something holds."""
    return until


@pytest.fixture
def temp_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of the test's own in which temporary directories are made."""
    root = tmp_path / "tmp"
    root.mkdir()
    monkeypatch.setenv("TMPDIR", str(root))
    monkeypatch.setattr("tempfile.tempdir", None)
    return root


@pytest.fixture(scope="module")
def servers() -> Iterator[LocalStack]:
    """Valkey and SeaweedFS, supervised, with the states that they passed in ``states``."""
    states: list[tuple[str, PartState]] = []
    stack = LocalStack(
        StackConfig(parts=("valkey", "s3"), supervise=True),
        on_state=lambda name, state: states.append((name, state)),
    )
    with stack:
        yield stack


@pytest.fixture
def server() -> Iterator[Server]:
    """The gateway's stand-in."""
    made = Server()
    yield made
    made.close()


@pytest.fixture
def other_host() -> Iterator[Server]:
    """The object store's stand-in."""
    made = Server()
    yield made
    made.close()


@pytest.fixture(params=["blocking", "async"])
def opening(request: pytest.FixtureRequest) -> Open:
    """Opens either client, as ``Client`` would be."""
    return partial(open_client, request.param)


@pytest.fixture
def client(server: Server, opening: Open) -> Iterator[Client]:
    with opening(server.url, KEY, timeout_s=5) as made:
        yield made
