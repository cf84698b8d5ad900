"""Desks that answer estimates: side by side, within the plan's limits, and in time."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import psutil
import pytest
import redis
from PIL import Image

from contract.blobs import BlobStore
from contract.estimates import EstimateAnswer, EstimateQuestion, answer_key, ask
from contract.redis_io import connect, run
from contract.settings import FleetSettings
from contract.task import ObjectInput, TaskSpec, UrlInput
from ovis_fleet.stack import LocalStack
from tests.corpus import pdfs
from tests.workers.conftest import QUEUE
from tests.workers.media_web import BODIES, serving
from workers.estimate_desk import EstimateDesk
from workers.media.pool import MediaPool
from workers.settings import WorkerSettings


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def desks(servers: LocalStack, client: redis.Redis, fleet_settings: FleetSettings) -> Iterator[list[EstimateDesk]]:
    """Two desks at work."""
    settings = WorkerSettings(media_processes=1, egress_allow_http=True, egress_allow_cidrs="127.0.0.0/8")  # type: ignore[arg-type]

    def open_media() -> MediaPool:
        return MediaPool(settings, on_death=lambda _: None)

    desks = [EstimateDesk(connect(servers.redis_url), BlobStore(fleet_settings), open_media, 2, 256) for _ in range(2)]
    threads = [threading.Thread(target=desk.serve) for desk in desks]
    before = set(psutil.Process().children())
    for thread in threads:
        thread.start()
    yield desks
    for desk in desks:
        desk.close()
    for thread in threads:
        thread.join()
    for desk in desks:
        desk.client.close()
    assert set(psutil.Process().children()) <= before, "a desk ends its media process"


def put(
    client: redis.Redis, name: str, source: UrlInput | ObjectInput, *, kind: str = "image", wait_s: int = 20
) -> str:
    """Ask; reply where the answer will be."""
    seconds, _ = client.time()
    spec = TaskSpec(kind=kind, model=QUEUE, operation="ocr", prompt="Read.", inputs=(source,))  # type: ignore[arg-type]
    question = EstimateQuestion(id=name, spec=spec, until_ms=1000 * (int(seconds) + wait_s))
    assert run(client, ask(question, "acme", 10)) == "asked"
    return answer_key(name)


def answer(client: redis.Redis, key: str, timeout_s: int = 20) -> EstimateAnswer:
    patient = client.client()
    ends = 0
    while (reply := patient.blpop([key], timeout=1)) is None:
        ends += 1
        assert ends < timeout_s, "no answer came"
    patient.close()
    return EstimateAnswer.model_validate_json(reply[1])


@pytest.fixture
def tiff(fleet_settings: FleetSettings) -> ObjectInput:
    """A document of three pages."""
    page, out = Image.new("RGB", (300, 200), "white"), io.BytesIO()
    page.save(out, "TIFF", save_all=True, append_images=[page] * 2)
    blobs = BlobStore(fleet_settings)
    blobs.put("uploads/three.tiff", out.getvalue(), "image/tiff")
    return ObjectInput(bucket=blobs.bucket, key="uploads/three.tiff")


def test_a_server_that_never_answers_delays_nobody_elses_estimate(
    client: redis.Redis, desks: list[EstimateDesk], web: str
) -> None:
    BODIES["quick"] = _png()
    slow = put(client, "slow", UrlInput(url=f"{web}/silent"), wait_s=5)
    quick = [put(client, f"quick-{number}", UrlInput(url=f"{web}/quick")) for number in range(4)]

    answers = [answer(client, key) for key in quick]

    assert [one.estimate and one.estimate.tiles for one in answers] == [1] * 4
    assert not client.exists(slow)
    late = answer(client, slow)
    assert late.error is not None
    assert late.error.code == "limit_exceeded"


def test_more_parts_than_a_task_may_have_are_refused(
    client: redis.Redis, desks: list[EstimateDesk], tiff: ObjectInput
) -> None:
    found = answer(client, put(client, "three", tiff, kind="document"))
    assert found.error is not None
    assert (found.error.code, found.error.detail) == ("limit_exceeded", "the task would have 3 parts; the limit is 2")


def test_what_is_no_picture_is_refused_as_the_task_would_be(
    client: redis.Redis, desks: list[EstimateDesk], web: str
) -> None:
    BODIES["page.pdf"] = pdfs.written([["a page"]])
    found = answer(client, put(client, "page", UrlInput(url=f"{web}/page.pdf")))
    assert found.error is not None
    assert (found.error.code, found.error.detail[:18]) == ("not_an_image", "the bytes are none")


def _png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), "white").save(out, "PNG")
    return out.getvalue()
