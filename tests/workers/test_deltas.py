"""What an attempt writes reaches those who follow its task."""

from __future__ import annotations

import threading
import time
from uuid import uuid4

import redis

from contract import store
from contract.events import EventBody, events_key
from contract.redis_io import connect, run
from contract.task import Attempt
from ovis_engine import Delta
from tests.workers.conftest import QUEUE, SubmitTask
from workers.deltas import DeltaWriter

TEXT = "Grüße aus 東京"


def claim(client: redis.Redis) -> Attempt:
    attempt = run(client, store.claim(QUEUE, token=uuid4().hex, worker="w1"))
    assert attempt is not None
    return attempt


def written(client: redis.Redis, task_id: str) -> list[EventBody]:
    entries = client.xrange(events_key(task_id))
    bodies = [EventBody.model_validate_json(fields["event"]) for _, fields in entries]
    return [body for body in bodies if body.kind == "delta"]


def test_the_pieces_make_up_the_text_in_few_events(client: redis.Redis, submit_task: SubmitTask) -> None:
    task_id = submit_task()
    with DeltaWriter(client, claim(client).token) as write:
        for offset, character in enumerate(TEXT):
            write(Delta(text=character, offset=offset, num_output_tokens=offset))
    events = written(client, task_id)
    text = ""
    for event in events:
        assert event.offset == len(text)
        text += event.text or ""
    assert text == TEXT
    assert len(events) < len(TEXT)
    assert {event.attempt for event in events} == {1}


def test_an_attempt_that_lost_its_lease_tells_nothing(client: redis.Redis, submit_task: SubmitTask) -> None:
    task_id = submit_task()
    attempt = claim(client)
    run(client, store.release(attempt.token, "engine_died", counts=True))
    with DeltaWriter(client, attempt.token) as write:
        write(Delta(text="late", offset=0, num_output_tokens=1))
    assert written(client, task_id) == []


def test_a_redis_that_is_away_stops_nobody(unused_port: int) -> None:
    away = connect(f"redis://127.0.0.1:{unused_port}/0")
    with DeltaWriter(away, "token") as write:
        write(Delta(text="x", offset=0, num_output_tokens=1))
    away.close()


def test_a_redis_that_fails_for_a_while_costs_no_piece(client: redis.Redis, submit_task: SubmitTask) -> None:
    """Given something else under the key of the task's events, until a piece has met it."""
    task_id = submit_task()
    attempt = claim(client)
    client.rename(events_key(task_id), "aside")
    client.set(events_key(task_id), "no stream")
    client.config_resetstat()
    ends = time.monotonic() + 30
    with DeltaWriter(client, attempt.token) as write:
        write(Delta(text="one ", offset=0, num_output_tokens=1))
        while "errorstat_WRONGTYPE" not in client.info("errorstats"):
            assert time.monotonic() < ends, "the piece was never sent"
            threading.Event().wait(0.01)
        client.rename("aside", events_key(task_id))
        write(Delta(text="two", offset=4, num_output_tokens=2))
    assert "".join(event.text or "" for event in written(client, task_id)) == "one two"
