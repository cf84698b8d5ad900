"""A document goes in over HTTP; its pages come out, whatever dies meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import redis

from contract import store
from contract.blobs import BlobStore
from contract.settings import FleetSettings
from ovis_fleet import Client
from ovis_fleet.stack import LocalStack
from tests.corpus.text_pdf import make_lines, make_pdf
from tests.e2e.conftest import MODEL

NUM_PAGES = 20

#: Pages of the document that is canceled.
LONG = 2000

TRUTH = ["\n".join(make_lines(page)) for page in range(1, NUM_PAGES + 1)]
PDF = make_pdf([make_lines(page) for page in range(1, NUM_PAGES + 1)])


def distance(a: str, b: str) -> int:
    """Edits that turn one text into the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def assert_read(texts: list[str]) -> None:
    assert len(texts) == NUM_PAGES
    rates = [distance(truth, text.strip()) / len(truth) for truth, text in zip(TRUTH, texts, strict=True)]
    assert max(rates) <= 0.05, rates


def submit(api: Client, **options: object) -> str:
    return api.submit(PDF, kind="document", model=MODEL, operation="ocr", options=options or None).id


#: Token, claims and result of parts, by number.
Done = dict[int, tuple[str | None, ...]]


def done_parts(queue: redis.Redis, task_id: str) -> Done:
    """Token, claims and result of every part that is done."""
    found = {}
    for part in range(int(queue.hget(store.task_key(task_id), "parts_total") or 0)):
        names = [f"p{part}:{name}" for name in ("state", "token", "claims", "result")]
        state, *rest = queue.hmget(store.task_key(task_id), names)
        if state == "succeeded":
            found[part] = tuple(rest)
    return found


def until_done(
    queue: redis.Redis, task_id: str, count: int, timeout_s: float = 60
) -> dict[int, tuple[str | None, ...]]:
    deadline = time.monotonic() + timeout_s
    while len(done := done_parts(queue, task_id)) < count:
        assert time.monotonic() < deadline, "the pages never came"
        time.sleep(0.02)
    return done


def test_a_worker_killed_in_the_middle_of_a_document_loses_and_repeats_no_page(
    fleet: LocalStack, api: Client, queue: redis.Redis
) -> None:
    task_id = submit(api)
    before = until_done(queue, task_id, 4)
    with httpx.Client(base_url=fleet.url, headers={"Authorization": f"Bearer {fleet.api_key}"}) as http:
        early = http.get(f"/v1/tasks/{task_id}/parts/{min(before)}").json()
        assert early["unit"] == {"kind": "page", "page": min(before) + 1}
    fleet.kill_part("model")
    before = done_parts(queue, task_id)
    assert len(before) < NUM_PAGES
    fleet.start_part("model")
    task = api.wait(task_id, 120)

    assert (task.status, task.progress.parts_done, task.progress.parts_failed) == ("succeeded", NUM_PAGES, 0)
    after = done_parts(queue, task_id)
    assert {part: after[part] for part in before} == before, "what was done before isn't run again"
    for part in range(NUM_PAGES):
        history = queue.hget(store.task_key(task_id), f"p{part}:history") or ""
        assert history.count('"why":"succeeded"') == 1
    parts = api.result(task_id)["parts"]
    assert [part["unit"]["page"] for part in parts] == list(range(1, NUM_PAGES + 1))
    assert_read([part["text"] for part in parts])
    assert [text.strip() for text in api.result(task_id, "text").split("\f")] == [p["text"].strip() for p in parts]
    assert task.usage is not None
    assert task.usage.tiles == NUM_PAGES


def test_an_io_worker_killed_while_it_plans_or_assembles_only_delays(
    fleet: LocalStack, api: Client, queue: redis.Redis
) -> None:
    task_id = submit(api, pages="2-4")
    fleet.kill_part("io")
    fleet.start_part("io")
    until_done(queue, task_id, 3)
    fleet.kill_part("io")
    fleet.start_part("io")
    task = api.wait(task_id, 120)
    assert task.status == "succeeded"
    assert [part["unit"]["page"] for part in api.result(task_id)["parts"]] == [2, 3, 4]
    assert task.attempts == 3


def children(fleet: LocalStack) -> list[set[int]]:
    """Process ids of the media processes, and of whatever else a worker started, by worker."""
    workers = [psutil.Process(fleet.parts[name].pid) for name in ("model", "io")]
    return [{child.pid for child in worker.children(recursive=True)} for worker in workers]


def temporary_files(fleet: LocalStack) -> list[str]:
    """Files without a name that the workers hold open, as an assembly does."""
    found = []
    for name in ("model", "io"):
        for handle in Path(f"/proc/{fleet.parts[name].pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found.append(str(handle.readlink()))
    return sorted(target for target in found if target.startswith("/tmp/") and target.endswith("(deleted)"))


def test_a_long_document_canceled_midway_leaves_nothing_behind(
    fleet: LocalStack, api: Client, queue: redis.Redis
) -> None:
    before = children(fleet), temporary_files(fleet)
    pdf = make_pdf([make_lines(page) for page in range(1, LONG + 1)])
    task_id = api.submit(pdf, kind="document", model=MODEL, operation="ocr").id
    until_done(queue, task_id, 3)
    assert queue.hget(store.task_key(task_id), "parts_total") == str(LONG)
    began = time.monotonic()
    api.cancel(task_id)
    task = api.wait(task_id, 30)
    assert time.monotonic() - began < 5

    # The queue's fixture sees that no lease, no attempt and no waiting part is left.
    assert (task.status, task.progress.parts_total) == ("canceled", LONG)
    assert (children(fleet), temporary_files(fleet)) == before
    api.delete(task_id)
    assert list(queue.scan_iter(f"*{task_id}*")) == [f"ovis:purged:{task_id}"]
    assert [
        name for name in queue.scan_iter("ovis:*") if queue.type(name) == "zset" and held(queue, name, task_id)
    ] == []
    settings = FleetSettings(**{name.removeprefix("OVIS_").lower(): value for name, value in fleet.env.items()})
    stored = [one.task_id for room in ("inputs", "results") for one in BlobStore(settings).list_tasks(room)]
    assert task_id not in stored


def held(queue: redis.Redis, name: str, task_id: str) -> bool:
    """Whether a sorted set names the task or a part of it."""
    return any(str(member).startswith(task_id) for member in queue.zrange(name, 0, -1))


def test_the_command_prints_a_documents_text(fleet: LocalStack, tmp_path: Path) -> None:
    (tmp_path / "report.pdf").write_bytes(PDF)
    env = {**os.environ, "OVIS_URL": fleet.url, "OVIS_API_KEY": fleet.api_key}
    command = [
        sys.executable,
        "-c",
        "from ovis_fleet.cli import main; main()",
        "submit",
        "report.pdf",
        "--operation",
        "ocr",
        "--wait",
    ]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "report.pdf: succeeded" in done.stderr
    assert_read(done.stdout.split("\f"))


def test_a_document_that_is_none_fails_with_a_typed_error(api: Client) -> None:
    task = api.submit(b"no document at all", kind="document", model=MODEL, wait_s=30)
    assert task.status == "failed"
    assert task.error is not None
    assert (task.error.code, task.error.retryable) == ("not_a_document", False)
