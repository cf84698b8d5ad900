"""An io worker with a job that stands still ends, so that another may do it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import redis

from contract import store
from contract.blobs import BlobStore, input_key, result_key
from contract.redis_io import run
from contract.settings import FleetSettings
from contract.submissions import Submission, submit
from contract.task import ObjectInput, PartResult, TaskSpec, Usage, dumps, new_task_id
from ovis_fleet.stack import LocalStack
from tests.corpus.pdfs import written
from tests.workers.conftest import QUEUE
from workers.liveness import STALLED_STATUS


def hand_in(client: redis.Redis, blobs: BlobStore) -> str:
    """Hand in a document of one page."""
    task_id = new_task_id()
    key = input_key("acme", task_id, 0)
    blobs.put(key, written([["a page"]]), "application/pdf")
    source = ObjectInput(bucket=blobs.bucket, key=key)
    spec = TaskSpec(kind="document", model=QUEUE, operation="ocr", prompt="Read.", inputs=(source,))
    assert run(client, submit(Submission(task_id, "acme", spec, 1, 1.0, 10, 10)))[0] == "created"
    return task_id


def read_page(client: redis.Redis, blobs: BlobStore) -> Callable[[], str]:
    """Wait for the page and store its result; reply what commits it, after which the assembly waits."""
    ends = time.monotonic() + 30
    while (attempt := run(client, store.claim(QUEUE, token="t", worker="w"))) is None:
        assert time.monotonic() < ends, "the document was never planned"
    key = result_key("acme", attempt.task_id, attempt.part, attempt.claims)
    result = PartResult(text="a page", finish_reason="stop", blob_key=key, usage=Usage(pages=1))
    blobs.put(key, dumps(result.document(attempt.task_id, attempt.part, attempt.spec)).encode(), "application/json")
    return lambda: run(client, store.finish(attempt, "succeeded", result=result))


def test_an_assembly_that_stands_still_ends_its_worker(
    client: redis.Redis, servers: LocalStack, fleet_settings: FleetSettings, tmp_path: Path
) -> None:
    """Given an object store that takes connections and says nothing."""
    blobs = BlobStore(fleet_settings)
    env = {**os.environ, **servers.env, "OVIS_STALL_S": "1", "OVIS_MEDIA_TIMEOUT_S": "1"}
    argv = [sys.executable, "-m", "workers", "io", "--metrics-host", "127.0.0.1", "--metrics-port", "0"]
    s3 = servers.parts["s3"].pid or 0
    with (tmp_path / "io.log").open("wb") as log, subprocess.Popen(argv, env=env, stderr=log, stdout=log) as worker:
        try:
            hand_in(client, blobs)
            finish = read_page(client, blobs)
            os.kill(s3, signal.SIGSTOP)
            assert finish() == "committed"
            assert worker.wait(60) == STALLED_STATUS
        finally:
            os.kill(s3, signal.SIGCONT)
            worker.kill()
    assert '"stalled"' in (tmp_path / "io.log").read_text()
