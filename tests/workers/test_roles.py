"""The roles as processes: drain, supervision, purging."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry

from contract import store, submissions
from contract.blobs import BlobStore, input_key, result_key
from contract.errors import InputUnavailable
from contract.metrics import QueueMetrics
from contract.redis_io import connect, run
from contract.settings import FleetSettings
from contract.task import ObjectInput, TaskOptions, TaskSpec, new_task_id
from ovis_fleet.stack import LocalStack, StackConfig
from tests.workers.conftest import QUEUE, SubmitTask
from workers.cleaning import Cleaner
from workers.housekeeping import Housekeeper
from workers.sweep import sweep_orphans

#: The bundled model goes on for long after this.
LONG_ANSWER = "x"
RECEIPT = Path(__file__).parent.parent.parent / "examples" / "receipt.png"


def until(condition: Callable[[], bool], timeout_s: float = 40) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)


def test_work_that_outlasts_the_grace_is_handed_back_without_costing_an_attempt() -> None:
    config = StackConfig(parts=("valkey", "s3", "model"), extra_env={"OVIS_DRAIN_GRACE_S": "0"})
    with LocalStack(config) as stack:
        client = connect(stack.redis_url)
        settings = FleetSettings(**{name.removeprefix("OVIS_").lower(): value for name, value in stack.env.items()})
        blobs, task_ids = BlobStore(settings), [new_task_id() for _ in range(24)]
        for task_id in task_ids:
            key = input_key("acme", task_id, 0)
            blobs.put(key, RECEIPT.read_bytes(), "image/png")
            spec = TaskSpec(
                kind="image",
                model=QUEUE,
                operation="ocr",
                prompt="Read.",
                inputs=(ObjectInput(bucket=stack.bucket, key=key),),
            )
            run(client, submissions.submit(submissions.Submission(task_id, "acme", spec, 1, 1.0, 1000, 1000)))
        until(lambda: client.zcard("ovis:leases") >= 8)
        stack.stop_part("model")
        states = [client.hmget(store.task_key(task_id), "status", "p0:attempts") for task_id in task_ids]
        assert client.zcard("ovis:leases") == 0
        assert ["queued", "0"] in states
        assert {status for status, _ in states} <= {"queued", "succeeded"}
        assert all(attempts == "0" for status, attempts in states if status == "queued")
        client.close()


def test_a_worker_that_cannot_load_its_model_does_not_start(servers: LocalStack, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workers", "model", "--model", QUEUE, "--metrics-port", "0"]
    done = subprocess.run(
        [*command, "--checkpoint", str(tmp_path)],
        env={**os.environ, **servers.env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    event = json.loads(done.stderr.splitlines()[-1])
    assert event["event"] == "start_failed"
    assert event["error"].startswith("CheckpointError: config.json")


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["model", "--model", "gpt-5"], {}, "gpt-5"),
        (["model", "--model", QUEUE, "--device", "tpu"], {}, "tpu"),
        (["io"], {"OVIS_MEDIA_PROCESSES": "0"}, "OVIS_MEDIA_PROCESSES"),
        (["io"], {"OVIS_WEBHOOK_KEYS": "hunter2"}, "OVIS_WEBHOOK_KEYS: Value error, a key is 32 random bytes"),
    ],
    ids=["unknown model", "unknown device", "bad setting", "bad key"],
)
def test_a_wrong_start_says_what_is_wrong(arguments: list[str], environment: dict[str, str], said: str) -> None:
    command = [sys.executable, "-m", "workers", *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert "hunter2" not in done.stderr


def children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


def pins(*pids: int) -> set[bytes]:
    """What processes have CUDA_VISIBLE_DEVICES set to."""
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")]
    return {line for line in lines if line.startswith(b"CUDA_VISIBLE_DEVICES=")}


def test_the_supervisor_pins_restarts_and_stops_its_workers(servers: LocalStack, client: redis.Redis) -> None:
    program = "from workers.supervisor import supervise; supervise(['7', '8'], ['io'], metrics_port=0)"
    supervisor = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, **servers.env})
    try:
        until(lambda: len(children(supervisor.pid)) == 2)
        first, second = children(supervisor.pid)
        # A child has its own environment only once it has become the worker.
        until(lambda: pins(first, second) == {b"CUDA_VISIBLE_DEVICES=7", b"CUDA_VISIBLE_DEVICES=8"})
        os.kill(first, signal.SIGKILL)
        until(lambda: len(set(children(supervisor.pid)) - {first}) == 2)
        workers = children(supervisor.pid)
        until(lambda: client.get(store.REAPER_KEY) is not None)
    finally:
        supervisor.terminate()
        assert supervisor.wait(60) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


@pytest.fixture
def housekeeper(client: redis.Redis) -> Housekeeper:
    return Housekeeper(client, QueueMetrics(CollectorRegistry()))


@pytest.fixture
def cleaner(client: redis.Redis, fleet_settings: FleetSettings) -> Cleaner:
    return Cleaner(client, BlobStore(fleet_settings), QueueMetrics(CollectorRegistry()))


def test_a_task_past_its_retention_is_purged_with_its_blobs(
    client: redis.Redis, cleaner: Cleaner, submit_task: SubmitTask
) -> None:
    kept, due = submit_task(), submit_task(retention_s=0)
    for task_id in (kept, due):
        cleaner.blobs.put(input_key("acme", task_id, 0), b"x", "image/png")
        cleaner.blobs.put(result_key("acme", task_id, 0, 1), b"x", "application/json")
        run(client, store.cancel(task_id, "acme"))
    cleaner.one_pass()
    assert not client.exists(store.task_key(due))
    assert client.exists(store.task_key(kept))
    assert cleaner.blobs.get(input_key("acme", kept, 0)) == b"x"
    for key in (input_key("acme", due, 0), result_key("acme", due, 0, 1)):
        with pytest.raises(InputUnavailable):
            cleaner.blobs.get(key)


def test_one_pass_takes_back_tops_up_and_counts(
    client: redis.Redis, housekeeper: Housekeeper, submit_task: SubmitTask
) -> None:
    submit_task()
    housekeeper.one_pass()
    run(client, store.claim(QUEUE, token="token-1", worker="w1"))
    client.zadd("ovis:leases", {"token-1": 1})
    client.delete(QUEUE)
    housekeeper.one_pass()
    assert client.zcard("ovis:leases") == 0
    assert client.llen(QUEUE) == 1
    assert housekeeper.metrics.waiting.labels(QUEUE)._value.get() == 1


def test_late_tasks_are_ended(client: redis.Redis, housekeeper: Housekeeper, submit_task: SubmitTask) -> None:
    late = submit_task(deadline_s=0)
    housekeeper.one_pass()
    assert client.hget(store.task_key(late), "status") == "expired"


def test_objects_without_a_record_are_swept_when_they_are_old(
    client: redis.Redis, fleet_settings: FleetSettings, submit_task: SubmitTask
) -> None:
    blobs = BlobStore(fleet_settings)
    known, orphan = submit_task(), new_task_id()
    for task_id in (known, orphan):
        for index in range(2):
            blobs.put(input_key("acme", task_id, index), b"x", "image/png")
        blobs.put(result_key("acme", task_id, 0, 1), b"x", "application/json")
    assert sweep_orphans(client, blobs, min_age_s=3600) == 0
    assert sweep_orphans(client, blobs, min_age_s=0) >= 2
    stored = {entry.task_id for room in ("inputs", "results") for entry in blobs.list_tasks(room)}
    assert known in stored
    assert orphan not in stored


def test_a_cleaner_that_closes_stops_between_tasks(
    client: redis.Redis, cleaner: Cleaner, submit_task: SubmitTask
) -> None:
    due = submit_task(retention_s=0)
    run(client, store.cancel(due, "acme"))
    cleaner.close()
    cleaner.one_pass()
    assert client.exists(store.task_key(due))
    assert not client.exists("ovis:lock:purge", "ovis:swept")


def test_leases_are_taken_back_while_a_purge_waits_for_s3(
    client: redis.Redis, servers: LocalStack, submit_task: SubmitTask, tmp_path: Path
) -> None:
    """Given an object store that takes connections and says nothing."""
    due = submit_task(retention_s=0)
    run(client, store.cancel(due, "acme"))
    held = submit_task()
    argv = [sys.executable, "-m", "workers", "io", "--metrics-host", "127.0.0.1", "--metrics-port", "0"]
    with socket.create_server(("127.0.0.1", 0)) as silent, (tmp_path / "io.log").open("wb") as log:
        s3 = f"http://127.0.0.1:{silent.getsockname()[1]}"
        env = {**os.environ, **servers.env, "OVIS_S3_ENDPOINT_URL": s3}
        with subprocess.Popen(argv, env=env, stderr=log, stdout=log) as worker:
            try:
                until(lambda: bool(client.exists(store.REAPER_KEY) and client.exists("ovis:lock:purge")))
                purge = client.get("ovis:lock:purge")
                run(client, store.claim(QUEUE, token="token-1", worker="dead"))
                client.zadd("ovis:leases", {"token-1": 1})
                until(lambda: client.zcard("ovis:leases") == 0)
                assert client.get("ovis:lock:purge") == purge, "it is the same purge, which still waits"
            finally:
                worker.kill()
    assert client.hmget(store.task_key(held), "status", "p0:attempts") == ["queued", "1"]
    assert client.exists(store.task_key(due))


def test_one_io_worker_sweeps_per_interval(client: redis.Redis, cleaner: Cleaner) -> None:
    cleaner.one_pass()
    assert client.pttl("ovis:swept") > 0


def test_a_second_sigterm_hands_back_at_once() -> None:
    config = StackConfig(parts=("valkey", "s3", "model"), extra_env={"OVIS_DRAIN_GRACE_S": "600"})
    with LocalStack(config) as stack:
        client = connect(stack.redis_url)
        task_id = new_task_id()
        options = TaskOptions(max_new_tokens=3000)
        spec = TaskSpec(kind="text", model=QUEUE, operation="ask", prompt=LONG_ANSWER, options=options)
        run(client, submissions.submit(submissions.Submission(task_id, "acme", spec, 1, 1.0, 1000, 1000)))
        until(lambda: client.zcard("ovis:leases") == 1)
        worker = stack.parts["model"]
        worker.send_signal(signal.SIGTERM)
        until(lambda: "drain_started" in worker.log_tail(50))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) is not None
        status = client.hmget(store.task_key(task_id), "status", "p0:attempts")
        assert status in (["queued", "0"], ["succeeded", "1"])
        client.close()


def test_a_worker_that_stands_still_ends_itself(servers: LocalStack, client: redis.Redis) -> None:
    program = (
        "import threading; from workers.liveness import Look, end_stalled, watch_progress\n"
        "looks = {'engine': lambda: Look(True, 1)}\n"
        "watch_progress(looks, stall_s=1, on_stall=end_stalled, closing=threading.Event()).join()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert done.returncode == 75


def test_a_pass_without_redis_is_logged_and_not_fatal(unused_port: int, fleet_settings: FleetSettings) -> None:
    away = connect(f"redis://127.0.0.1:{unused_port}/0")
    metrics = QueueMetrics(CollectorRegistry())
    Housekeeper(away, metrics).one_pass()
    Cleaner(away, BlobStore(fleet_settings), metrics).one_pass()
    away.close()
