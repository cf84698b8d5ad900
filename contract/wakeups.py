"""The Celery message that says "there is work on this queue", and the Celery settings both sides share.

The message carries no task id (law 1), so one text serves for all; only its tag and its queue are filled in, by the
scripts that push it. Written by hand after Celery's message protocol 2, because publishing through Celery can't join
the script that writes the record. ``tests/contract/test_wakeups.py`` compares it with what Celery itself sends.
"""

from __future__ import annotations

import base64
import json
from typing import Any

#: Name of the one Celery task.
WAKE_TASK = "ovis.wake"

#: What the scripts replace in ``WAKEUP_MESSAGE``.
TAG, QUEUE = "@TAG@", "@QUEUE@"

_BODY = base64.b64encode(
    json.dumps([[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]).encode()
).decode()

#: One wake-up as kombu's Redis transport stores it.
WAKEUP_MESSAGE = json.dumps(
    {
        "body": _BODY,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": WAKE_TASK,
            "id": TAG,
            "root_id": TAG,
            "parent_id": None,
            "group": None,
            "shadow": None,
            "eta": None,
            "expires": None,
            "retries": 0,
            "timelimit": [None, None],
            "argsrepr": "()",
            "kwargsrepr": "{}",
            "origin": "ovis",
            "ignore_result": True,
        },
        "properties": {
            "correlation_id": TAG,
            "reply_to": "",
            "delivery_mode": 1,
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": TAG,
        },
    },
    separators=(",", ":"),
)


def wakeup_message(tag: str, queue: str) -> str:
    """One wake-up, filled in."""
    return WAKEUP_MESSAGE.replace(TAG, tag).replace(QUEUE, queue)


def celery_settings(queue: str) -> dict[str, Any]:
    """Celery's configuration for a worker of ``queue``.

    Acks are early and not emulated: a wake-up may be lost, so kombu need not keep copies of it that a killed worker
    would leave behind.
    """
    return {
        "accept_content": ["json"],
        "task_serializer": "json",
        "task_ignore_result": True,
        "task_acks_late": False,
        "task_default_queue": queue,
        "task_create_missing_queues": True,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_send_task_events": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "ack_emulation": False,
            "health_check_interval": 5,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
        },
    }
