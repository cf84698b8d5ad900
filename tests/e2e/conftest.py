"""The whole fleet as real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from contract import store
from contract.redis_io import connect
from ovis_fleet import Client
from ovis_fleet.stack import LocalStack, StackConfig

ROOT = Path(__file__).parent.parent.parent
RECEIPT = ROOT / "examples" / "receipt.png"
SAMPLES = ROOT / "ovis_engine" / "models" / "ovis2-reader" / "samples"
MODEL = "ovis2-reader"

#: Pictures whose text lies beside them.
EXAMPLES = sorted((ROOT / "examples").glob("*.png"))


@pytest.fixture(scope="session")
def fleet() -> Iterator[LocalStack]:
    """One fleet for all tests here. A test that stops a part starts it again."""
    with LocalStack(StackConfig(extra_env={"OVIS_EGRESS_ALLOW_HTTP": "true"})) as stack:
        yield stack


@pytest.fixture
def api(fleet: LocalStack) -> Iterator[Client]:
    """The Python client of the fleet."""
    with Client(fleet.url, fleet.api_key) as client:
        yield client


@pytest.fixture
def queue(fleet: LocalStack) -> Iterator[redis.Redis]:
    """A look into the fleet's Valkey; at the end nothing may be left in the works."""
    client = connect(fleet.redis_url)
    yield client
    stats = client.hgetall(store.queue_stats_key(MODEL))
    left = {"leases": client.zcard("ovis:leases"), "attempts": client.hlen("ovis:attempts")}
    client.close()
    assert left == {"leases": 0, "attempts": 0}
    assert (stats.get("waiting", "0"), stats.get("running", "0")) == ("0", "0")
