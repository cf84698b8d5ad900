"""The docs name everything that an operator or a caller can meet."""

from __future__ import annotations

import re
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from api_gateway.errors import HTTP_STATUS
from api_gateway.settings import GatewaySettings
from contract.catalogue import CATALOGUE
from contract.metrics import BatchMetrics, GatewayMetrics, JobMetrics, QueueMetrics, WebhookMetrics, WorkerMetrics
from tests.bench.__main__ import BENCHES
from workers.settings import WorkerSettings

ROOT = Path(__file__).parent.parent
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in listed.stdout.splitlines()]


PAGES = [page for page in tracked("*.md") if "parity" not in page.parts]


@pytest.mark.parametrize("settings", [GatewaySettings, WorkerSettings])
def test_every_setting_is_documented(settings: type[GatewaySettings | WorkerSettings]) -> None:
    assert [name for name in settings.model_fields if f"`OVIS_{name.upper()}`" not in OPERATIONS] == []


@pytest.mark.parametrize(
    "metrics", [GatewayMetrics, WorkerMetrics, QueueMetrics, JobMetrics, WebhookMetrics, BatchMetrics]
)
def test_every_metric_is_documented(
    metrics: type[GatewayMetrics | WorkerMetrics | QueueMetrics | JobMetrics | WebhookMetrics | BatchMetrics],
) -> None:
    registry = CollectorRegistry()
    metrics(registry)
    assert [metric.name for metric in registry.collect() if f"`{metric.name}`" not in OPERATIONS] == []


def test_every_error_code_is_documented() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    assert [code for code in HTTP_STATUS if f"`{code}`" not in page] == []


def test_every_model_is_documented() -> None:
    page = (ROOT / "docs" / "models.md").read_text()
    assert [name for name in CATALOGUE if f"| {name} |" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_architecture_page_names_every_module() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text().replace("\\", "")
    modules = [path.relative_to(ROOT) for path in tracked("*.py")]
    rooms = {"contract", "api_gateway", "workers", "ovis_engine", "ovis_fleet"}
    top = [path for path in modules if path.parts[0] in rooms and len(path.parts) == 2 and path.name != "__init__.py"]
    assert [str(path) for path in top if path.name not in page] == []


def test_every_benchmark_that_is_documented_can_be_run() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = {name for page in pages for name in re.findall(r"tests\.bench (\w+)", page.read_text())}

    assert {"engine", "queue", "fleet"} <= named
    assert named == set(BENCHES)
    assert all(callable(import_module(f"tests.bench.{name}").main) for name in BENCHES)
