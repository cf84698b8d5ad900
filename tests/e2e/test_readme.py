"""The README's lines, run as printed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT

SCRIPT = Path(sys.executable).parent / "ovis-fleet"


def readme_block() -> str:
    text = (ROOT / "README.md").read_text()
    found = re.search(r"<!-- tests/e2e/test_readme\.py .*?-->\n```sh\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[dict[str, str]]:
    """``ovis-fleet up``, as in the other terminal; the environment to talk to it."""
    environment = {**os.environ, "OVIS_FLEET_STATE": str(tmp_path / "local.json")}
    process = subprocess.Popen(
        [str(SCRIPT), "up"], env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if "OVIS_API_KEY" in line or "ovis-fleet submit" in line or "sk-" in line:
            break
    assert process.poll() is None, "".join(lines)
    yield environment
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    process.stdout.close()
    assert process.wait(60) == 0
    assert not (tmp_path / "local.json").exists()


def test_the_curl_lines_of_the_readme_work_as_printed(up: dict[str, str]) -> None:
    script = readme_block().replace(".venv/bin/ovis-fleet", str(SCRIPT))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", re.sub(r"\n\n#", "\necho\n\n#", script)],
        env=up,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
    read, accepted, newest, models = answers
    assert read["status"] == "succeeded"
    assert "HARBOR BAKERY" in read["result"]["text"]
    assert accepted["status"] in ("queued", "running")
    assert [task["id"] for task in newest["data"]][:2] == [accepted["id"], read["id"]]
    assert next(model for model in models["data"] if model["id"] == "ovis2-reader")["workers"] == 1
