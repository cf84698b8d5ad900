"""The benchmarks that need no model run to their figures; what the figures are is no test's concern."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("name", "options", "figures"),
    [
        (
            "queue",
            "--short 20 --long 200 --rounds 1 --calls 200",
            {"bytes_per_task", "submit_us_1k", "submit_us_1m", "claim_us_1k", "claim_us_1m"},
        ),
        ("waiting", "--polls 20 --streams 10 --ends 5", {"polls", "streams", "rss_mib", "p99_ms"}),
        ("gateway", "--rounds 1 --seconds 0.2", {"over_send_task", "over_empty", "p99_ms"}),
    ],
)
def test_a_benchmark_prints_its_figures_last(name: str, options: str, figures: set[str]) -> None:
    argv = [sys.executable, "-m", "tests.bench", name, *options.split()]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    # 1 says that an aim was missed, which so short a run says nothing of.
    assert done.returncode in (0, 1), done.stderr[-2000:]
    said = done.stdout.splitlines()
    assert said, done.stderr[-2000:]
    assert figures <= json.loads(said[-1]).keys()
