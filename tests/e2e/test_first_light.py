"""A picture goes in over HTTP, its text comes out."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import redis
from PIL import Image
from rich.console import Console

from contract.blobs import BlobStore
from contract.settings import FleetSettings
from ovis_engine import Engine, EngineConfig, Request, bundled_model_path, tile_image
from ovis_fleet import Client
from ovis_fleet.demo import Demo, default_pictures
from ovis_fleet.display import StackView
from ovis_fleet.records import Task
from ovis_fleet.stack import LocalStack
from tests.e2e.conftest import EXAMPLES, MODEL, RECEIPT, SAMPLES

PICTURES = [RECEIPT, *sorted(SAMPLES.glob("sample*.png"))]


def submit_all(api: Client, pictures: list[Path]) -> list[str]:
    return [api.submit(picture, model=MODEL, operation="ocr").id for picture in pictures]


def ended(api: Client, task_ids: list[str], timeout_s: float = 90) -> list[Task]:
    return [api.wait(task_id, timeout_s) for task_id in task_ids]


def metrics_url(fleet: LocalStack, part: str) -> str:
    argv = fleet.parts[part].argv
    return f"http://127.0.0.1:{argv[argv.index('--metrics-port') + 1]}/metrics"


def sample(url: str, name: str) -> float:
    found = re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", httpx.get(url).text, re.MULTILINE)
    assert found is not None
    return float(found.group(1))


def test_the_fleet_reads_what_the_engine_alone_reads(api: Client, queue: redis.Redis) -> None:
    tasks = ended(api, submit_all(api, PICTURES))
    with Engine.from_pretrained(bundled_model_path(MODEL), EngineConfig(dtype="float32")) as engine:
        for picture, task in zip(PICTURES, tasks, strict=True):
            tiles = tile_image(Image.open(picture), side=engine.side, max_partition=1)
            alone = engine.submit(
                Request(prompt="Read all the text in the image.", images=(tiles,), max_new_tokens=320)
            ).result()
            assert task.status == "succeeded"
            assert task.result is not None
            assert task.result.text == alone.text


def test_the_receipt_is_read_and_the_result_lies_in_s3(fleet: LocalStack, api: Client, queue: redis.Redis) -> None:
    truth = json.loads((SAMPLES / "samples.json").read_text())["receipt.png"]["truth"]
    task = api.submit(RECEIPT, model=MODEL, wait_s=60)
    assert task.status == "succeeded"
    assert task.result is not None
    assert task.result.text == truth
    assert task.usage is not None
    assert (task.usage.images, task.usage.tiles, task.usage.visual_tokens) == (1, 1, 576)
    settings = FleetSettings(**{name.removeprefix("OVIS_").lower(): value for name, value in fleet.env.items()})
    blobs = BlobStore(settings)
    key = task.result.location.removeprefix(f"s3://{blobs.bucket}/")
    assert json.loads(blobs.get(key))["text"] == truth
    assert api.result(task.id, "text") == truth


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.stem for example in EXAMPLES])
def test_every_example_is_read_without_an_error(api: Client, queue: redis.Redis, example: Path) -> None:
    task = api.submit(example, model=MODEL, operation="ocr", wait_s=60)
    assert task.result is not None
    assert task.result.text == example.with_suffix(".txt").read_text().rstrip("\n")


def test_the_demo_prints_the_examples_texts(fleet: LocalStack, queue: redis.Redis) -> None:
    printed = io.StringIO()
    demo = Demo(default_pictures(), MODEL, Console(file=printed, width=100))
    assert demo.run(fleet, StackView(Console(file=io.StringIO()))) == 0
    assert [picture.name for picture in default_pictures()] == ["receipt.png", "label.png", "invoice.png"]
    for picture in default_pictures():
        for line in picture.with_suffix(".txt").read_text().splitlines():
            assert f"│ {line} " in printed.getvalue()


def test_a_text_task_runs(api: Client, queue: redis.Redis) -> None:
    task = api.submit(
        kind="text", model=MODEL, operation="ask", prompt="hello", options={"max_new_tokens": 8}, wait_s=60
    )
    assert task.status == "succeeded"
    assert task.usage is not None
    assert task.usage.visual_tokens == 0


def test_several_pictures_make_one_task(api: Client, queue: redis.Redis) -> None:
    task = api.submit([RECEIPT, SAMPLES / "sample1.png"], model=MODEL, wait_s=60)
    assert task.status == "succeeded"
    assert task.usage is not None
    assert (task.usage.images, task.usage.visual_tokens) == (2, 2 * 576)


def test_sixty_four_pictures_share_engine_steps(fleet: LocalStack, api: Client, queue: redis.Redis) -> None:
    url, seen, done = metrics_url(fleet, "model"), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            seen.append(sample(url, "ovis_engine_running_requests"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    tasks = ended(api, submit_all(api, [PICTURES[i % len(PICTURES)] for i in range(64)]))
    done.set()
    watcher.join()
    assert {task.status for task in tasks} == {"succeeded"}
    assert max(seen) > 8


def test_a_running_task_can_be_canceled(fleet: LocalStack, api: Client, queue: redis.Redis) -> None:
    options = {"max_new_tokens": 3000}
    task_id = api.submit(kind="text", model=MODEL, operation="ask", prompt="on and on", options=options).id
    deadline = time.monotonic() + 30
    while api.get(task_id).status == "queued" and time.monotonic() < deadline:
        time.sleep(0.02)
    after = api.cancel(task_id)
    assert after.status in ("canceling", "canceled", "succeeded")
    assert api.wait(task_id, 30).status in ("canceled", "succeeded")


def test_sigterm_lets_running_work_finish_and_costs_no_attempt(
    fleet: LocalStack, api: Client, queue: redis.Redis
) -> None:
    task_ids = submit_all(api, [PICTURES[i % len(PICTURES)] for i in range(32)])
    fleet.restart_part("model")
    tasks = ended(api, task_ids)
    assert {task.status for task in tasks} == {"succeeded"}
    assert {task.attempts for task in tasks} == {1}


def test_celery_tools_see_the_workers(fleet: LocalStack, tmp_path: Path) -> None:
    celery = Path(sys.executable).parent / "celery"
    command = [str(celery), "-b", fleet.redis_url, "inspect", "ping", "--json"]
    pongs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    assert {name.split("-")[0] for name in pongs} == {"ovis2", "io"}


def test_flower_sees_the_workers(fleet: LocalStack, unused_port: int) -> None:
    celery = Path(sys.executable).parent / "celery"
    command = [str(celery), "-b", fleet.redis_url, "flower", "--address=127.0.0.1", f"--port={unused_port}"]
    environment = {**os.environ, "FLOWER_UNAUTHENTICATED_API": "true"}
    flower = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        names: set[str] = set()
        deadline = time.monotonic() + 60
        while len(names) < 2 and time.monotonic() < deadline:
            try:
                answer = httpx.get(f"http://127.0.0.1:{unused_port}/api/workers?refresh=1", timeout=20)
                names = set(answer.json()) if answer.status_code == 200 else set()
            except httpx.TransportError:
                time.sleep(0.2)
        assert {name.split("-")[0] for name in names} == {"ovis2", "io"}
    finally:
        flower.terminate()
        flower.wait(20)


@pytest.mark.parametrize("part", ["gateway", "model", "io"])
def test_every_role_serves_metrics(fleet: LocalStack, part: str) -> None:
    url = f"{fleet.url}/metrics" if part == "gateway" else metrics_url(fleet, part)
    assert "# TYPE ovis_" in httpx.get(url).text
