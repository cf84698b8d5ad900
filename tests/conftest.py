"""Real parts for every test: started once a session, emptied between tests."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from contract.redis_io import connect
from contract.settings import FleetSettings
from ovis_fleet.stack import LocalStack, StackConfig

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests mean the settings that they name, not those of the shell they run in."""
    for name in [name for name in os.environ if name.startswith("OVIS_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def servers() -> Iterator[LocalStack]:
    """Valkey and SeaweedFS, without any role."""
    with LocalStack(StackConfig(parts=("valkey", "s3"))) as stack:
        yield stack


@pytest.fixture
def client(servers: LocalStack) -> Iterator[redis.Redis]:
    """A client of an empty Valkey."""
    client = connect(servers.redis_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def fleet_settings(servers: LocalStack) -> FleetSettings:
    """Settings that reach the servers."""
    return FleetSettings(**{name.removeprefix("OVIS_").lower(): value for name, value in servers.env.items()})


@pytest.fixture
def unused_port() -> int:
    """A port of the loopback interface on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
