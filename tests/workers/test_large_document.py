"""A document of 2 000 pages: what the io role holds in memory, how soon its pages are there, how fast a cancel is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
import redis

from contract import store
from contract.blobs import BlobStore, input_key, result_key
from contract.redis_io import connect, run
from contract.settings import FleetSettings
from contract.submissions import Submission, submit
from contract.task import ObjectInput, PartResult, TaskSpec, Usage, dumps, new_task_id
from ovis_fleet.stack import LocalStack, StackConfig
from tests.corpus.text_pdf import make_lines, make_pdf
from tests.workers.conftest import QUEUE

NUM_PAGES = 2000
MOST_MB = 600


def until(condition: Callable[[], bool], timeout_s: float) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, "it never came to be"
        time.sleep(0.01)
    return time.monotonic() - began


def peak_mb(pid: int) -> float:
    """The most that a process has held, media processes apart."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def hand_in(client: redis.Redis, blobs: BlobStore, pdf: bytes) -> str:
    task_id = new_task_id()
    key = input_key("acme", task_id, 0)
    blobs.put(key, pdf, "application/pdf")
    source = ObjectInput(bucket=blobs.bucket, key=key)
    spec = TaskSpec(kind="document", model=QUEUE, operation="ocr", prompt="Read.", inputs=(source,))
    assert run(client, submit(Submission(task_id, "acme", spec, 1, 1.0, 1000, 1000)))[0] == "created"
    return task_id


def answer_all(client: redis.Redis, blobs: BlobStore) -> int:
    """Do every waiting page as a model worker does; reply how many there were."""
    count = 0
    while (attempt := run(client, store.claim(QUEUE, token=uuid4().hex, worker="w1"))) is not None:
        key = result_key("acme", attempt.task_id, attempt.part, attempt.claims)
        result = PartResult(text="a line of print\n" * 60, finish_reason="stop", blob_key=key, usage=Usage(pages=1))
        blobs.put(key, dumps(result.document(attempt.task_id, attempt.part, attempt.spec)).encode(), "application/json")
        assert run(client, store.finish(attempt, "succeeded", result=result)) == "committed"
        count += 1
    return count


@pytest.mark.slow
def test_two_thousand_pages_fit_the_io_role(capsys: pytest.CaptureFixture[str]) -> None:
    pdf = make_pdf([make_lines(page) for page in range(1, NUM_PAGES + 1)])
    with LocalStack(StackConfig(parts=("valkey", "s3", "io"))) as stack:
        client = connect(stack.redis_url)
        env = {name.removeprefix("OVIS_").lower(): value for name, value in stack.env.items()}
        blobs = BlobStore(FleetSettings(**env))  # type: ignore[arg-type]

        task_id = hand_in(client, blobs, pdf)
        planned_s = until(lambda: client.hget(store.task_key(task_id), "parts_total") == str(NUM_PAGES), 20)
        began = time.monotonic()
        assert run(client, store.cancel(task_id, "acme")) == "canceled"
        canceled_s = time.monotonic() - began
        assert client.hget(store.queue_stats_key(QUEUE), "waiting") == "0"

        whole = hand_in(client, blobs, pdf)
        until(lambda: client.hget(store.task_key(whole), "stage") == "parts", 20)
        assert answer_all(client, blobs) == NUM_PAGES
        assembled_s = until(lambda: client.hget(store.task_key(whole), "status") == "succeeded", 120)
        held_mb = peak_mb(stack.parts["io"].pid)
        client.close()
    with capsys.disabled():
        print(f"\n2000 pages: planned in {planned_s:.2f} s, canceled in {canceled_s:.3f} s, ", end="")
        print(f"assembled in {assembled_s:.1f} s, io role {held_mb:.0f} MB")
    assert held_mb < MOST_MB
    assert canceled_s < 5
