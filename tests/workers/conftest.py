"""Tasks put into the queue without a gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from contract import submissions
from contract.blobs import BlobStore
from contract.redis_io import run
from contract.settings import FleetSettings
from contract.task import ObjectInput, TaskSpec, new_task_id
from ovis_engine import Engine, EngineConfig, bundled_model_path
from ovis_fleet.stack import LocalStack
from tests.workers.one_worker import Bench
from workers.media.pool import MediaPool
from workers.settings import WorkerSettings

QUEUE = "ovis2-reader"
SubmitTask = Callable[..., str]


@pytest.fixture
def submit_task(client: redis.Redis) -> SubmitTask:
    """Accept a task as the gateway would; reply its id."""

    def submit(*, key: str | None = None, retention_s: int = 86400, deadline_s: int | None = None) -> str:
        task_id = new_task_id()
        spec = TaskSpec(
            kind="image" if key else "text",
            model=QUEUE,
            operation="ocr",
            prompt="Read.",
            inputs=(ObjectInput(bucket="ovis", key=key),) if key else (),
            retention_s=retention_s,
            deadline_s=deadline_s,
        )
        submission = submissions.Submission(
            task_id=task_id, tenant="acme", spec=spec, cost=1, weight=1.0, tenant_limit=1000, queue_limit=1000
        )
        assert run(client, submissions.submit(submission)) == ("created", task_id)
        return task_id

    return submit


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    config = EngineConfig(dtype="float32", kv_cache_tokens=16384)
    with Engine.from_pretrained(bundled_model_path(), config) as engine:
        yield engine


@pytest.fixture(scope="module")
def media(servers: LocalStack) -> Iterator[MediaPool]:
    values = {name.removeprefix("OVIS_").lower(): value for name, value in servers.env.items()}
    pool = MediaPool(WorkerSettings(**values, media_processes=1), on_death=lambda why: None)  # type: ignore[arg-type]
    yield pool
    pool.close()


@pytest.fixture
def bench(client: redis.Redis, fleet_settings: FleetSettings, engine: Engine, media: MediaPool) -> Bench:
    blobs = BlobStore(fleet_settings)
    blobs.delete_prefix("cache/")
    return Bench(client, blobs, engine, media)
