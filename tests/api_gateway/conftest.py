"""A real Valkey, a real SeaweedFS and the real gateway process; tests play the worker by the contract's commands."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import httpx
import pytest
import redis

from contract import store
from contract.blobs import BlobStore, result_key
from contract.redis_io import connect, run
from contract.settings import FleetSettings
from contract.task import Attempt, PartResult, Usage, dumps
from ovis_fleet.stack import LocalStack, StackConfig

#: The smallest PNG: one pixel. The gateway doesn't look inside.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63f8ffff3f0005fe02fe0def46b80000000049454e44ae426082"
)

#: Every tenant, and what it has beside the usual.
TENANTS: dict[str, dict[str, Any]] = {
    "acme": {},
    "other": {},
    "small": {"max_waiting_parts": 1, "max_file_bytes": 3000},
    "light": {"max_waiting_bytes": 1000},
    "hasty": {"requests_per_s": 5},
    "few": {"max_unended_tasks": 2},
    "narrow": {"models": ["ovis2-reader"], "webhook_hosts": ["*.example.org"]},
    "reader": {"scopes": ["read"]},
    "operator": {"scopes": ["read", "write", "admin"]},
}

KEYS = {name: f"sk-{name}-0123456789" for name in TENANTS}

#: Text longer than this sits in the blob store alone, as a worker decides it.
INLINE_BYTES = 64


def write_tenants(path: Path) -> Path:
    """A tenants file with all of ``TENANTS``."""
    path.write_text(json.dumps({"tenants": [tenant_entry(name) for name in TENANTS]}))
    return path


def tenant_entry(name: str, key: str | None = None) -> dict[str, Any]:
    """One tenant of the file, by default with its key of ``KEYS``."""
    entry = {"id": name, "max_waiting_bytes": 10**9, "s3_prefixes": ["s3://ovis/uploads/"], **TENANTS.get(name, {})}
    sha256 = hashlib.sha256((key or KEYS[name]).encode()).hexdigest()
    entry["keys"] = [{"id": f"key_{name}", "sha256": sha256, "scopes": entry.pop("scopes", ["read", "write"])}]
    return entry


@dataclass
class GatewayProcess:
    """One gateway that a test started for itself."""

    url: str
    process: subprocess.Popen[bytes]

    def memory_peak_bytes(self) -> int:
        """Most resident memory so far."""
        return memory_peak_bytes(self.process.pid)

    def stop(self) -> int:
        """SIGTERM; reply the exit code."""
        self.process.terminate()
        return self.process.wait(20)


def memory_peak_bytes(pid: int) -> int:
    """Most resident memory that a process has had so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def free_port() -> int:
    """A port that nobody has right now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(holds: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Look until ``holds()``; fail after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it didn't come about in time"
        time.sleep(0.02)


def answers(url: str) -> bool:
    """Whether something answers 200 at ``url``."""
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def tenants_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tenants(tmp_path_factory.mktemp("tenants") / "tenants.json")


@pytest.fixture(scope="session")
def stack(tenants_file: Path) -> Iterator[LocalStack]:
    config = StackConfig(parts=("valkey", "s3", "gateway"), extra_env={"OVIS_TENANTS_FILE": str(tenants_file)})
    with LocalStack(config) as running:
        yield running


@dataclass
class Fleet:
    """What a test needs of a running stack: callers' clients, and the worker's and the operator's view."""

    stack: LocalStack
    redis: redis.Redis
    blobs: BlobStore
    s3: Any
    clients: dict[str, httpx.Client] = field(default_factory=dict)

    @classmethod
    def of(cls, stack: LocalStack) -> Fleet:
        """Connect to a stack."""
        settings = FleetSettings(
            **{name.removeprefix("OVIS_").lower(): value for name, value in stack.env.items()}  # type: ignore[arg-type]
        )
        s3 = boto3.client(
            "s3",
            endpoint_url=stack.s3_endpoint,
            region_name="us-east-1",
            aws_access_key_id=stack.s3_credentials.access_key_id,
            aws_secret_access_key=stack.s3_credentials.secret_access_key,
        )
        return cls(stack, connect(stack.redis_url), BlobStore(settings), s3)

    def caller(self, tenant: str = "acme") -> httpx.Client:
        """A client with the tenant's key."""
        if tenant not in self.clients:
            headers = {"Authorization": f"Bearer {KEYS[tenant]}"} if tenant in KEYS else {}
            # A hundred threads share it: closing the connections beyond a limit would race with those who read.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
            self.clients[tenant] = httpx.Client(base_url=self.stack.url, headers=headers, timeout=30, limits=limits)
        return self.clients[tenant]

    def close(self) -> None:
        """Close every connection."""
        for client in self.clients.values():
            client.close()
        self.redis.close()
        self.s3.close()

    def keys(self, prefix: str = "inputs/") -> list[str]:
        """Objects in the bucket."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket="ovis", Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def task_ids(self) -> list[str]:
        """Tasks in Redis, whoever's."""
        return [key.removeprefix("ovis:task:") for key in self.redis.scan_iter("ovis:task:*")]

    def claim(self, model: str = "ovis2-reader") -> Attempt:
        """Take the next part, as a worker does."""
        attempt = run(self.redis, store.claim(model, token=uuid4().hex, worker="worker-1"))
        assert attempt is not None
        return attempt

    def exhaust(self, model: str = "ovis2-reader", why: str = "engine_died") -> str:
        """Let every attempt of the next part end without a result; reply its task, a dead letter now."""
        for expected in ("queued", "queued", "exhausted"):
            attempt = self.claim(model)
            assert run(self.redis, store.release(attempt.token, why, counts=True)) == expected
        return attempt.task_id

    def succeed(self, attempt: Attempt, text: str = "hello", **told: object) -> None:
        """Store and commit a result, as a worker does; ``told`` is in the stored document alone."""
        usage = Usage(images=1, tiles=1, prompt_tokens=9, visual_tokens=576, output_tokens=3, gpu_seconds=0.25)
        key = result_key(attempt.tenant, attempt.task_id, attempt.part, attempt.claims)
        document = {"task_id": attempt.task_id, "text": text, "finish_reason": "stop", "usage": usage.model_dump()}
        self.blobs.put(key, dumps({**document, **told}).encode(), "application/json")
        inline = text if len(text.encode()) <= INLINE_BYTES else None
        result = PartResult(text=inline, finish_reason="stop", blob_key=key, usage=usage)
        assert run(self.redis, store.finish(attempt, "succeeded", result=result)) == "committed"


@pytest.fixture(scope="session")
def connected(stack: LocalStack) -> Iterator[Fleet]:
    fleet = Fleet.of(stack)
    yield fleet
    fleet.close()


@pytest.fixture
def fleet(connected: Fleet) -> Fleet:
    """The stack with nothing in it."""
    connected.redis.flushall()
    connected.blobs.delete_prefix("")
    return connected


@pytest.fixture
def api(fleet: Fleet) -> httpx.Client:
    """The tenant acme's client."""
    return fleet.caller()


@pytest.fixture
def text_task() -> dict[str, Any]:
    """A small valid body."""
    return {"kind": "text", "model": "ovis2-reader", "prompt": "Say hello."}


@pytest.fixture
def start_gateway(stack: LocalStack, tmp_path: Path) -> Iterator[Callable[..., GatewayProcess]]:
    """Starts a gateway of the test's own on the session's stores."""
    started: list[subprocess.Popen[bytes]] = []

    def start(program: list[str] | None = None, **env: str) -> GatewayProcess:
        port = free_port()
        argv = [sys.executable, *(program or ["-m", "api_gateway"]), "--port", str(port)]
        with (tmp_path / f"gateway-{port}.log").open("wb") as log:
            process = subprocess.Popen(argv, env={**os.environ, **stack.env, **env}, stderr=log, cwd=tmp_path)
        started.append(process)
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: process.poll() is not None or answers(f"{url}/livez"), 20)
        assert process.poll() is None, (tmp_path / f"gateway-{port}.log").read_text()
        return GatewayProcess(url, process)

    yield start
    for process in started:
        process.kill()
        process.wait()
