"""schemathesis against the live gateway: no server error, nothing that the description doesn't say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ovis_fleet.stack import LocalStack
from tests.api_gateway.conftest import KEYS, Fleet, GatewayProcess, answers, free_port, wait_until

CONFIG = Path(__file__).with_name("schemathesis.toml")


def explore(gateway: GatewayProcess, folder: Path, *options: str) -> int:
    """Let it try the interface; fail with what it found, else reply how many requests it made up."""
    st = Path(sys.executable).with_name("st")
    argv = [str(st), "--config-file", str(CONFIG), "run", f"{gateway.url}/openapi.json", "--checks", "all"]
    argv += ["--header", f"Authorization: Bearer {KEYS['operator']}", "--continue-on-failure", *options]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=900, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    made = re.search(r"(\d+) generated", done.stdout)
    assert made, done.stdout[-2000:]
    return int(made[1])


@pytest.fixture
def io_worker(stack: LocalStack, tmp_path: Path) -> Iterator[None]:
    """Answers estimates."""
    port = free_port()
    argv = [sys.executable, "-m", "workers", "io", "--metrics-port", str(port)]
    with (tmp_path / "io.log").open("wb") as log:
        process = subprocess.Popen(argv, env={**os.environ, **stack.env}, stderr=log, cwd=tmp_path)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), 60)
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def gateway(fleet: Fleet, io_worker: None, start_gateway: Callable[..., GatewayProcess]) -> GatewayProcess:
    """A gateway that lets nobody wait for long."""
    return start_gateway(OVIS_MAX_WAIT_S="0.1", OVIS_CHAT_S="0.1")


def test_no_made_up_request_breaks_the_interface(gateway: GatewayProcess, tmp_path: Path) -> None:
    assert explore(gateway, tmp_path, "--max-examples", "5", "--seed", "1") > 500
    (log,) = tmp_path.glob("gateway-*.log")
    assert "request_broke" not in log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_made_up_request_of_thousands_breaks_the_interface(gateway: GatewayProcess, tmp_path: Path) -> None:
    made = explore(gateway, tmp_path, "--max-examples", "100")
    print(f"{made} requests made up")
    assert made >= 2000
