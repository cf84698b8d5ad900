"""Tasks put into the queue without a gateway."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from contract import store
from contract.redis_io import run
from contract.task import ObjectInput, TaskSpec, new_task_id

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
        submission = store.Submission(
            task_id=task_id, tenant="acme", spec=spec, cost=1, weight=1.0, tenant_limit=1000, queue_limit=1000
        )
        assert run(client, store.submit(submission)) == ("created", task_id)
        return task_id

    return submit
