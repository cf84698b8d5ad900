"""The command as a process: what it prints, how it exits, what it leaves."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ovis_fleet.workspace import remove_abandoned

Wait = Callable[..., bool]
Run = Callable[..., "subprocess.CompletedProcess[str]"]

COMMAND = [sys.executable, "-m", "ovis_fleet.cli"]

#: ``up`` with the quickest part alone: the whole stack is tested where all rooms are.
VALKEY_UP = (
    "from rich.console import Console\n"
    "from ovis_fleet.running import run_stack, stay_up\n"
    "from ovis_fleet.stack import StackConfig\n"
    "run_stack(StackConfig(parts=('valkey',), supervise=True), Console(), stay_up)\n"
)


@pytest.fixture
def environment(temp_root: Path, tmp_path: Path) -> dict[str, str]:
    """An environment without a gateway, with its own state and temporary directories."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OVIS_")}
    return {**inherited, "XDG_STATE_HOME": str(tmp_path / "state"), "COLUMNS": "200"}


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Runs the command to its end."""

    def run_command(*arguments: str, **extra: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*COMMAND, *arguments],
            env={**environment, **extra},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run_command


@pytest.fixture
def up(environment: dict[str, str], temp_root: Path) -> Iterator["subprocess.Popen[str]"]:
    """A stack of one part in the foreground of another process, ready."""
    with subprocess.Popen(
        [sys.executable, "-c", VALKEY_UP], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Ctrl-C"):
                break
        yield process
        if process.poll() is None:
            process.kill()
    remove_abandoned(temp_root)


def test_the_version_is_the_packages(run: Run) -> None:
    assert re.fullmatch(r"ovis-fleet \d+\.\d+\.\d+\n", run("--version").stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["submit"], id="nothing to submit"),
        pytest.param(["submit", "no/such/file.png"], id="missing file"),
        pytest.param(["submit", "ftp://host/a"], id="unknown scheme"),
        pytest.param(["status"], id="no id"),
        pytest.param(["up", "--port", "many"], id="not a port"),
        pytest.param(["demo", "no/such/file.png"], id="missing picture"),
    ],
)
def test_wrong_use_exits_with_2(run: Run, arguments: list[str]) -> None:
    outcome = run(*arguments, OVIS_URL="http://127.0.0.1:9", OVIS_API_KEY="sk-x")

    assert outcome.returncode == 2
    assert "Traceback" not in outcome.stderr


def test_nobody_at_the_address_exits_with_3_and_one_line(run: Run) -> None:
    outcome = run("models", OVIS_URL="http://127.0.0.1:9", OVIS_API_KEY="sk-x")

    assert outcome.returncode == 3
    assert re.fullmatch(r"ovis-fleet: cannot reach http://127\.0\.0\.1:9: .*\n", outcome.stderr)


def test_no_stack_at_all_exits_with_3_and_says_how_to_start_one(run: Run) -> None:
    outcome = run("env")

    assert outcome.returncode == 3
    assert "ovis-fleet up" in outcome.stderr
    assert outcome.stdout == ""


def test_half_an_address_is_not_guessed(run: Run) -> None:
    outcome = run("models", OVIS_URL="http://127.0.0.1:9")

    assert outcome.returncode == 3
    assert "set both OVIS_URL and OVIS_API_KEY" in outcome.stderr


def test_other_commands_find_the_stack_that_is_up(
    up: "subprocess.Popen[str]", run: Run, environment: dict[str, str]
) -> None:
    note = Path(environment["XDG_STATE_HOME"]) / "ovis-fleet" / "local.json"
    outcome = run("env")

    assert note.stat().st_mode & 0o777 == 0o600
    assert outcome.returncode == 0
    assert re.fullmatch(r"export OVIS_URL=http://127\.0\.0\.1:\d+\nexport OVIS_API_KEY=sk-[\w-]{40,}\n", outcome.stdout)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_stops_everything_and_leaves_nothing(
    up: "subprocess.Popen[str]",
    environment: dict[str, str],
    temp_root: Path,
    gone: Callable[[int], bool],
    number: signal.Signals,
) -> None:
    children = [child.pid for child in psutil.Process(up.pid).children(recursive=True)]
    assert len(children) == 1

    up.send_signal(number)

    assert up.wait(20) == 0
    assert all(gone(pid) for pid in children)
    assert list(temp_root.iterdir()) == []
    assert list((Path(environment["XDG_STATE_HOME"]) / "ovis-fleet").iterdir()) == []


def test_a_killed_stack_is_not_taken_for_a_running_one(up: "subprocess.Popen[str]", run: Run) -> None:
    up.kill()
    up.wait()

    outcome = run("env")

    assert outcome.returncode == 3
    assert "no local stack is running" in outcome.stderr


def test_a_stack_that_cannot_start_says_why_and_leaves_nothing(
    run: Run, temp_root: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    outcome = run("up", "--model", "no-such-model", "--model-path", str(tmp_path))

    assert outcome.returncode == 1
    assert re.search(r"ovis-fleet: \w+ ended with status \d+ before it was ready; its log ends:\n.+", outcome.stderr)
    assert 'Traceback (most recent call last):\n  File "<' not in outcome.stderr
    assert list(temp_root.iterdir()) == []
    assert not (Path(environment["XDG_STATE_HOME"]) / "ovis-fleet").exists()


def test_the_address_of_the_environment_comes_first(up: "subprocess.Popen[str]", run: Run) -> None:
    outcome = run("env", OVIS_URL="https://fleet.example", OVIS_API_KEY="sk-theirs")

    assert outcome.stdout == "export OVIS_URL=https://fleet.example\nexport OVIS_API_KEY=sk-theirs\n"


def test_importing_the_client_loads_no_other_room_and_no_model_library() -> None:
    script = "import json, sys, ovis_fleet.cli; print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    loaded = json.loads(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    )

    assert not {"contract", "api_gateway", "workers", "ovis_engine", "torch", "redis", "boto3"} & set(loaded)
