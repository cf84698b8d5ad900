"""Our wake-ups are what Celery itself would send."""

from __future__ import annotations

import base64
import json
from typing import Any

import redis
from celery import Celery

from contract.wakeups import WAKE_TASK, celery_settings, wakeup_message
from ovis_fleet.stack import LocalStack

QUEUE = "ovis2-reader"


def celerys_own(servers: LocalStack, client: redis.Redis) -> dict[str, Any]:
    app = Celery("test", broker=servers.redis_url, set_as_current=False)
    app.conf.update(celery_settings(QUEUE))
    app.send_task(WAKE_TASK, queue=QUEUE, ignore_result=True)
    app.close()
    message = client.lpop(QUEUE)
    assert isinstance(message, str)
    found: dict[str, Any] = json.loads(message)
    return found


def test_a_wakeup_has_the_shape_of_celerys_own_message(servers: LocalStack, client: redis.Redis) -> None:
    ours = json.loads(wakeup_message("wake-1", QUEUE))
    theirs = celerys_own(servers, client)
    assert json.loads(base64.b64decode(ours["body"])) == json.loads(base64.b64decode(theirs["body"]))
    assert set(ours) <= set(theirs)
    assert set(ours["headers"]) <= set(theirs["headers"]) | {"ignore_result"}
    assert set(ours["properties"]) <= set(theirs["properties"])
    for name in ("content-type", "content-encoding"):
        assert ours[name] == theirs[name]
    for name in ("lang", "task", "retries", "timelimit", "eta", "expires"):
        assert ours["headers"][name] == theirs["headers"][name]
    assert ours["properties"]["body_encoding"] == theirs["properties"]["body_encoding"]


def test_a_wakeup_is_filled_in_completely() -> None:
    message = wakeup_message("wake-1", QUEUE)
    assert "@" not in message
    assert json.loads(message)["properties"]["delivery_tag"] == "wake-1"
