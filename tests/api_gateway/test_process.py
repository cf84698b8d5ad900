"""The process: how it starts, what it needs, and how it ends."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api_gateway.conftest import KEYS, PNG, Fleet, GatewayProcess

HEADERS = {"Authorization": f"Bearer {KEYS['acme']}"}

#: Runs the gateway where none of these can be imported.
WITHOUT_MODEL_LIBRARIES = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "workers", "ovis_engine", "ovis_fleet"}:
            raise AssertionError(f"the gateway imports {name}")

sys.meta_path.insert(0, Blocked())
from api_gateway.__main__ import main
sys.exit(main())
"""


def test_gateway_serves_models_without_model_libraries(
    fleet: Fleet, start_gateway: Callable[..., GatewayProcess]
) -> None:
    gateway = start_gateway(["-c", WITHOUT_MODEL_LIBRARIES])

    response = httpx.get(f"{gateway.url}/v1/models", headers=HEADERS)

    assert response.status_code == 200
    assert "ovis2-reader" in {model["id"] for model in response.json()["data"]}
    assert gateway.stop() == 0


def test_import_alone_does_nothing(tmp_path: Path) -> None:
    code = "import api_gateway.app, threading; assert threading.active_count() == 1"

    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


BAD_SETTINGS = {
    "too long a wait": ({"OVIS_MAX_WAIT_S": "9999"}, "OVIS_MAX_WAIT_S: Input should be less than or equal to 600"),
    "a word": ({"OVIS_MAX_BODY_BYTES": "lots-of-hush"}, "OVIS_MAX_BODY_BYTES: Input should be a valid integer"),
    "no tenants": ({"OVIS_TENANTS_FILE": "/nowhere/tenants"}, "OVIS_TENANTS_FILE: /nowhere/tenants: No such file"),
    "odd network": ({"OVIS_EGRESS_ALLOW_CIDRS": "10.0.0.0/99"}, "OVIS_EGRESS_ALLOW_CIDRS"),
}


@pytest.mark.parametrize(("env", "message"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_setting_stops_the_start(tenants_file: Path, env: dict[str, str], message: str) -> None:
    full = {**os.environ, "OVIS_TENANTS_FILE": str(tenants_file), "OVIS_S3_SECRET_ACCESS_KEY": "hush", **env}

    done = subprocess.run([sys.executable, "-m", "api_gateway"], env=full, capture_output=True, text=True, timeout=30)

    assert done.returncode == 2
    assert message in done.stderr
    assert "hush" not in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_tenants_setting_is_named() -> None:
    done = subprocess.run([sys.executable, "-m", "api_gateway"], capture_output=True, text=True, timeout=30)

    assert (done.returncode, done.stderr) == (2, "OVIS_TENANTS_FILE: Field required\n")


def test_bad_tenants_file_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "tenants.json"
    path.write_text('{"tenants": [{"id": "acme", "key_sha256": ["sk-plain"]}]}')
    env = {**os.environ, "OVIS_TENANTS_FILE": str(path)}

    done = subprocess.run([sys.executable, "-m", "api_gateway"], env=env, capture_output=True, text=True, timeout=30)

    assert done.returncode == 2
    assert f"{path}: tenants.0.key_sha256.0: String should match" in done.stderr
    assert "sk-plain" not in done.stderr


def test_sigterm_answers_long_polls_with_the_state_as_it_is(
    fleet: Fleet, text_task: dict[str, Any], start_gateway: Callable[..., GatewayProcess]
) -> None:
    gateway = start_gateway()
    tasks = f"{gateway.url}/v1/tasks"
    task_id = httpx.post(tasks, json=text_task, headers=HEADERS).json()["id"]
    with ThreadPoolExecutor(2) as threads:
        poll = threads.submit(httpx.get, f"{tasks}/{task_id}", params={"wait": "30"}, headers=HEADERS, timeout=40)
        prefer = {**HEADERS, "Prefer": "wait=30"}
        post = threads.submit(httpx.post, tasks, json=text_task, headers=prefer, timeout=40)
        time.sleep(0.7)
        start = time.monotonic()
        assert gateway.stop() == 0

    assert time.monotonic() - start < 5
    assert (poll.result().status_code, poll.result().json()["status"]) == (200, "queued")
    assert (post.result().status_code, post.result().json()["status"]) == (202, "queued")


def test_sigterm_lets_an_upload_finish(
    fleet: Fleet, text_task: dict[str, Any], start_gateway: Callable[..., GatewayProcess]
) -> None:
    gateway = start_gateway()
    terminated = threading.Event()

    def body() -> Iterator[bytes]:
        yield b'{"kind": "text", "model": "ovis2-reader",'
        time.sleep(0.3)
        gateway.process.terminate()
        terminated.set()
        time.sleep(0.7)
        yield b'"prompt": "Say hello."}'

    headers = {**HEADERS, "Content-Type": "application/json"}

    response = httpx.post(f"{gateway.url}/v1/tasks", content=body(), headers=headers)

    assert terminated.is_set()
    assert response.status_code == 202
    assert gateway.process.wait(10) == 0
    assert fleet.task_ids() == [response.json()["id"]]


def test_every_202_before_a_kill_is_a_whole_task(fleet: Fleet, start_gateway: Callable[..., GatewayProcess]) -> None:
    gateway = start_gateway()
    source = {"base64": base64.b64encode(PNG).decode(), "media_type": "image/png"}
    body = {"kind": "image", "model": "ovis2-reader", "input": source}
    accepted: list[str] = []

    def submit_until_it_dies() -> None:
        with httpx.Client(headers=HEADERS) as client:
            while True:
                try:
                    response = client.post(f"{gateway.url}/v1/tasks", json=body)
                except httpx.TransportError:
                    return
                assert response.status_code == 202
                accepted.append(response.json()["id"])

    with ThreadPoolExecutor(8) as threads:
        submitters = [threads.submit(submit_until_it_dies) for _ in range(8)]
        time.sleep(1.5)
        gateway.process.kill()
        for submitter in submitters:
            submitter.result()

    assert len(accepted) > 20
    stored = set(fleet.keys())
    waiting = set(fleet.redis.zrange("ovis:q:ovis2-reader:t:acme", 0, -1))
    for task_id in accepted:
        assert fleet.redis.hget(f"ovis:task:{task_id}", "status") == "queued"
        assert f"{task_id}/0" in waiting
        assert f"inputs/acme/{task_id}/0" in stored
