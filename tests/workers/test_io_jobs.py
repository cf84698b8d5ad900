"""Plans and assemblies, with real media processes, a real Valkey and a real S3 server."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
import redis
from PIL import Image
from prometheus_client import CollectorRegistry

from contract import planned, store, submissions
from contract.blobs import BlobStore, input_key, result_key
from contract.errors import FleetError
from contract.metrics import JobMetrics
from contract.record import TaskRecord
from contract.redis_io import run
from contract.settings import FleetSettings
from contract.task import (
    Attempt,
    ObjectInput,
    PartResult,
    TaskOptions,
    TaskSpec,
    TaskStatus,
    UrlInput,
    Usage,
    dumps,
    new_task_id,
)
from contract.units import PageUnit, Unit
from tests.workers.conftest import QUEUE
from workers.assembler import Assembler
from workers.io_jobs import JobRunner
from workers.job_watch import JobWatch
from workers.leases import LeaseKeeper, StopReason
from workers.media.pool import MediaPool
from workers.part_documents import PartDocuments
from workers.planner import Planner, clip_ranges
from workers.settings import WorkerSettings
from workers.settling import Settler

USAGE = Usage(images=1, pages=1, tiles=1, visual_tokens=576, output_tokens=3, gpu_seconds=0.25)


def tiff(pages: int) -> bytes:
    """A file of small grey pages."""
    first, *rest = [Image.new("L", (32 + page, 16), 255 - page) for page in range(pages)]
    written = io.BytesIO()
    first.save(written, format="TIFF", save_all=True, append_images=rest)
    return written.getvalue()


@pytest.fixture(scope="module")
def settings(servers) -> WorkerSettings:  # type: ignore[no-untyped-def]
    values = {name.removeprefix("OVIS_").lower(): value for name, value in servers.env.items()}
    return WorkerSettings(
        **values, media_processes=1, egress_allow_http=True, egress_allow_cidrs="127.0.0.0/8", inline_result_bytes=256
    )


@pytest.fixture(scope="module")
def media(settings: WorkerSettings) -> Iterator[MediaPool]:
    pool = MediaPool(settings, on_death=lambda _: None)
    yield pool
    pool.close()


@pytest.fixture
def blobs(fleet_settings: FleetSettings) -> BlobStore:
    return BlobStore(fleet_settings)


@pytest.fixture
def jobs(client: redis.Redis, blobs: BlobStore, media: MediaPool, settings: WorkerSettings) -> Iterator[JobRunner]:
    leases = LeaseKeeper(client, planned.IO_QUEUE, "io-1", slots=4)
    leases.start()
    yield JobRunner(
        client=client,
        planner=Planner(media, blobs, max_parts=50),
        assembler=Assembler(PartDocuments(client, blobs), blobs, settings.inline_result_bytes),
        leases=leases,
        settler=Settler(client, planned.finish_job),
        metrics=JobMetrics(CollectorRegistry()),
        watch=JobWatch(),
        worker="io-1",
    )
    leases.close()


Accept = Callable[..., str]


@pytest.fixture
def accept(client: redis.Redis, blobs: BlobStore) -> Accept:
    """Accept a task over some bytes, or a URL, as the gateway would; reply its id."""

    def submit(data: bytes | str, *, kind: str = "document", tenant_limit: int = 1000, **options: object) -> str:
        task_id = new_task_id()
        if isinstance(data, bytes):
            key = input_key("acme", task_id, 0)
            blobs.put(key, data, "image/tiff")
            source: ObjectInput | UrlInput = ObjectInput(bucket=blobs.bucket, key=key)
        else:
            source = UrlInput(url=data)
        spec = TaskSpec(
            kind=kind,  # type: ignore[arg-type]
            model=QUEUE,
            operation="ocr",
            prompt="Read.",
            inputs=(source,),
            options=TaskOptions.model_validate(options),
        )
        submission = submissions.Submission(task_id, "acme", spec, 1, 1.0, tenant_limit, 1000)
        assert run(client, submissions.submit(submission)) == ("created", task_id)
        return task_id

    return submit


def record(client: redis.Redis, task_id: str) -> TaskRecord:
    return TaskRecord.from_hash(task_id, client.hgetall(store.task_key(task_id)))


def units(client: redis.Redis, task_id: str) -> list[Unit]:
    total = record(client, task_id).parts_total
    found = [planned.read_part(n, client.hmget(store.task_key(task_id), planned.part_fields(n))) for n in range(total)]
    return [part.unit for part in found if part and part.unit]


def answer(client: redis.Redis, blobs: BlobStore, text: str) -> Attempt:
    """Do the next part as a model worker does."""
    attempt = run(client, store.claim(QUEUE, token=uuid4().hex, worker="w1"))
    assert attempt is not None
    key = result_key(attempt.tenant, attempt.task_id, attempt.part, attempt.claims)
    result = PartResult(text=text, finish_reason="stop", blob_key=key, usage=USAGE)
    blobs.put(key, dumps(result.document(attempt.task_id, attempt.part, attempt.spec)).encode(), "application/json")
    assert run(client, store.finish(attempt, "succeeded", result=result)) == "committed"
    return attempt


def plant(client: redis.Redis, found: list[Unit], *, summary_cost: int | None = None) -> None:
    """Plan without looking into a file."""
    job = run(client, planned.claim_job(token=uuid4().hex, worker="io-2"))
    assert job is not None
    assert run(client, planned.plant(job, found, cost=1, summary_cost=summary_cost)) == "committed"


def test_a_file_becomes_a_part_for_each_wanted_page(client: redis.Redis, jobs: JobRunner, accept: Accept) -> None:
    every, some = accept(tiff(5)), accept(tiff(5), pages="2,4-")
    assert [jobs.run_next() for _ in range(3)] == ["planned", "planned", "empty"]
    assert units(client, every) == [PageUnit(page=page) for page in range(1, 6)]
    assert units(client, some) == [PageUnit(page=page) for page in (2, 4, 5)]
    assert record(client, every).stage == "parts"


@pytest.mark.parametrize(
    ("data", "options", "code", "said"),
    [
        (tiff(3), {"pages": "2-4"}, "page_out_of_range", "page 4 is beyond the end: the file has 3 pages"),
        (tiff(51), {}, "limit_exceeded", "51 parts; the limit is 50"),
        (tiff(2), {"kind": "video", "clip_s": 5.0}, "not_a_video", "no video"),
    ],
    ids=["pages beyond the end", "too many pages", "no video"],
)
def test_a_file_that_cannot_be_planned_fails_its_task_with_a_typed_error(
    client: redis.Redis, jobs: JobRunner, accept: Accept, data: bytes, options: dict[str, object], code: str, said: str
) -> None:
    task_id = accept(data, **options)
    outcome = jobs.run_next()
    after = record(client, task_id)
    assert after.error is not None, outcome
    assert (after.status, after.error.code, after.error.retryable) == (TaskStatus.FAILED, code, False)
    assert said in after.error.detail


def test_bytes_that_are_no_document_fail_their_task_at_once(
    client: redis.Redis, jobs: JobRunner, accept: Accept
) -> None:
    task_ids = [accept(b"%PDX nothing"), accept(tiff(3)[:60])]
    assert [jobs.run_next() for _ in task_ids] == ["failed", "failed"]
    errors = [record(client, task_id).error for task_id in task_ids]
    assert [error.retryable for error in errors if error] == [False, False]


def test_a_plan_without_room_for_its_pages_rests_without_losing_a_try(
    client: redis.Redis, jobs: JobRunner, accept: Accept
) -> None:
    accept(tiff(3), tenant_limit=3)
    second = accept(tiff(1), tenant_limit=3)
    assert [jobs.run_next() for _ in range(2)] == ["planned", "released_queued"]
    assert client.hget(store.task_key(second), "pplan:attempts") == "0"
    while (attempt := run(client, store.claim(QUEUE, token=uuid4().hex, worker="w1"))) is not None:
        run(client, store.finish(attempt, "failed", error_json='{"code":"x","detail":"","retryable":false}'))
    client.zadd("ovis:q:io:delayed", {f"{second}/plan": 1})
    run(client, store.top_up("io"))
    assert jobs.run_next() == "planned"


def test_a_plan_that_waits_for_a_silent_server_is_canceled_within_seconds(
    client: redis.Redis, jobs: JobRunner, accept: Accept
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        task_id = accept(f"http://127.0.0.1:{silent.getsockname()[1]}/long.tiff")
        outcomes: list[str] = []
        thread = threading.Thread(target=lambda: outcomes.append(jobs.run_next()))
        thread.start()
        connection, _ = silent.accept()
        with connection:  # the request has come, the answer never will
            assert run(client, store.cancel(task_id, "acme")) == "canceling"
            thread.join(20)
            assert outcomes == ["canceled"]
            connection.settimeout(20)
            while connection.recv(4096):
                """Read the request to its end, which comes when the media process is gone."""
            accept(tiff(1))
            assert jobs.run_next() == "planned"
    assert record(client, task_id).status is TaskStatus.CANCELED
    assert client.zcard("ovis:leases") == 0


def test_a_canceled_plan_that_waits_for_a_media_process_looks_at_nothing(
    client: redis.Redis, jobs: JobRunner, media: MediaPool, accept: Accept
) -> None:
    """Given a single media process, which waits for a silent server."""
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as tarpit:
        busy = threading.Thread(target=look_in_vain, args=(media, silent.getsockname()[1]))
        busy.start()
        connection, _ = silent.accept()
        with connection:
            task_id = accept(f"http://127.0.0.1:{tarpit.getsockname()[1]}/long.tiff")
            outcomes: list[str] = []
            waiting = threading.Thread(target=lambda: outcomes.append(jobs.run_next()))
            waiting.start()
            waits_on(jobs.watch)
            assert run(client, store.cancel(task_id, "acme")) == "canceling"
            waiting.join(20)
            assert outcomes == ["canceled"]
            assert not jobs.watch.look().has_work
        accept(tiff(1))
        assert jobs.run_next() == "planned"
        tarpit.setblocking(False)
        with pytest.raises(BlockingIOError):
            tarpit.accept()
        busy.join()


def look_in_vain(media: MediaPool, port: int) -> None:
    with pytest.raises(FleetError):
        media.probe(f"http://127.0.0.1:{port}/long.tiff", trusted=False)


def waits_on(watch: JobWatch) -> None:
    """Return once the only job has made steps, as those make that wait their turn."""
    ends, seen = time.monotonic() + 30, set[object]()
    while len(seen) < 3:
        look = watch.look()
        if look.has_work:
            seen.add(look.progress)
        assert time.monotonic() < ends, "the job stands still"
        threading.Event().wait(0.01)


def test_drained_jobs_go_back_without_losing_a_try(client: redis.Redis, jobs: JobRunner, accept: Accept) -> None:
    task_id = accept(tiff(1))
    jobs.leases.stop_all(StopReason.DRAINED)
    assert jobs.run_next() == "released_queued"
    assert client.hget(store.task_key(task_id), "pplan:attempts") == "0"
    assert record(client, task_id).status is TaskStatus.QUEUED


def test_the_pages_are_assembled_in_every_form(
    client: redis.Redis, jobs: JobRunner, blobs: BlobStore, accept: Accept
) -> None:
    task_id = accept(tiff(3))
    assert jobs.run_next() == "planned"
    for text in ("one", "# two", "drei \u20ac"):
        answer(client, blobs, text)
    assert jobs.run_next() == "assembled"
    after = record(client, task_id)
    assert after.status is TaskStatus.SUCCEEDED
    assert after.assembly is not None
    assert after.assembly.text == "one\n\f# two\n\fdrei \u20ac\n"
    assert set(after.assembly.files) == {"json", "text", "markdown"}
    stored = {form: blobs.get(file.key) for form, file in after.assembly.files.items()}
    assert {form: len(data) for form, data in stored.items()} == {
        form: file.size_bytes for form, file in after.assembly.files.items()
    }
    assert b"<!-- page 2 -->\n\n# two\n\n---\n\n<!-- page 3 -->" in stored["markdown"]
    whole = json.loads(stored["json"])
    assert [part["text"] for part in whole["parts"]] == ["one", "# two", "drei \u20ac"]
    assert (whole["parts_total"], whole["parts_failed"]) == (3, 0)
    assert Usage.model_validate(whole["usage"]) == after.usage == USAGE + USAGE + USAGE


def test_a_failed_page_is_named_and_the_others_are_there(
    client: redis.Redis, jobs: JobRunner, blobs: BlobStore, accept: Accept
) -> None:
    task_id = accept(tiff(2))
    jobs.run_next()
    answer(client, blobs, "one " * 100)
    attempt = run(client, store.claim(QUEUE, token="bad", worker="w1"))
    assert attempt is not None
    error = {"code": "truncated_image", "detail": "damaged", "retryable": False}
    run(client, store.finish(attempt, "failed", error_json=json.dumps(error)))
    assert jobs.run_next() == "assembled"
    after = record(client, task_id)
    assert (after.status, after.parts_failed) == (TaskStatus.SUCCEEDED, 1)
    assert after.assembly is not None
    assert after.assembly.text is None, "it is too long to sit in the record"
    assert json.loads(blobs.get(after.assembly.files["json"].key))["parts"][1]["error"] == error


def test_a_result_that_got_lost_is_no_callers_fault(
    client: redis.Redis, jobs: JobRunner, blobs: BlobStore, accept: Accept
) -> None:
    task_id = accept(tiff(1))
    jobs.run_next()
    answer(client, blobs, "one")
    blobs.delete_prefix("results/")
    assert jobs.run_next() == "released_queued"
    assert client.hget(store.task_key(task_id), "passemble:attempts") == "1"


def test_clips_are_assembled_with_their_times_and_their_summary(
    client: redis.Redis, jobs: JobRunner, blobs: BlobStore, accept: Accept
) -> None:
    task_id = accept(b"unused", kind="video", clip_s=10.0)
    plant(client, list(clip_ranges(0, 25, 10)), summary_cost=1)
    for text in ("A dog.", "A cat.", ""):
        answer(client, blobs, text)
    answer(client, blobs, "Pets.")
    assert jobs.run_next() == "assembled"
    assembly = record(client, task_id).assembly
    assert assembly is not None
    assert blobs.get(assembly.files["vtt"].key).decode() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:10.000\nA dog.\n\n00:00:10.000 --> 00:00:20.000\nA cat.\n"
    )
