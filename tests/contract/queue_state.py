"""Everything that the queue holds in Valkey, read in one step, and what must be true of it at any time.

``check`` knows no test: it takes two looks at the same Valkey and raises ``AssertionError`` for what breaks a law.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import redis

from contract.scripting import MAX_ATTEMPTS, MAX_SECOND_ATTEMPTS
from contract.task import LEGAL_MOVES, TaskStatus

_READ_ALL = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  local value
  if kind == 'hash' then value = redis.call('HGETALL', key)
  elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'set' then value = redis.call('SMEMBERS', key)
  elseif kind == 'stream' then value = redis.call('XRANGE', key, '-', '+')
  else value = redis.call('GET', key) end
  found[#found + 1] = { key, kind, value }
end
return found
"""

#: Field of the record that counts the parts in each ended state.
COUNTERS = {"succeeded": "parts_done", "failed": "parts_failed", "canceled": "parts_canceled"}


@dataclass(frozen=True)
class Attempt:
    """One live attempt as it stands in ``ovis:attempts``."""

    token: str
    task: str
    part: int
    worker: str
    number: int
    kind: int

    @property
    def member(self) -> str:
        """The part's name in the queue's sets."""
        return f"{self.task}/{self.part}"


@dataclass(frozen=True)
class QueueState:
    """One look at Valkey: every key with its value (hashes and sorted sets as dicts)."""

    queue: str
    keys: Mapping[str, Any]
    attempts: Mapping[str, Attempt] = field(init=False)
    tasks: Mapping[str, Mapping[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        read = {token: Attempt(**_attempt(token, text)) for token, text in self.keys.get("ovis:attempts", {}).items()}
        object.__setattr__(self, "attempts", read)
        records = {k.removeprefix("ovis:task:"): v for k, v in self.keys.items() if k.startswith("ovis:task:")}
        object.__setattr__(self, "tasks", records)

    @classmethod
    def read(cls, client: redis.Redis, queue: str) -> QueueState:
        """Read everything in one step."""
        keys: dict[str, Any] = {}
        for key, kind, value in client.eval(_READ_ALL, 0):
            if kind == "hash":
                keys[key] = dict(zip(value[::2], value[1::2], strict=True))
            elif kind == "zset":
                keys[key] = dict(zip(value[::2], map(float, value[1::2]), strict=True))
            else:
                keys[key] = value
        return cls(queue, keys)

    def of_queue(self, suffix: str) -> Mapping[str, Any]:
        """A hash or sorted set of the queue; empty where there is none."""
        found: Mapping[str, Any] = self.keys.get(f"ovis:q:{self.queue}:{suffix}", {})
        return found

    @property
    def waiting_by_tenant(self) -> dict[str, Mapping[str, float]]:
        """Waiting first attempts of each tenant."""
        prefix = f"ovis:q:{self.queue}:t:"
        return {key.removeprefix(prefix): value for key, value in self.keys.items() if key.startswith(prefix)}

    @property
    def num_waiting(self) -> int:
        """Parts that a claim may take."""
        suspects = len(self.of_queue("suspects2")) + len(self.of_queue("suspects3"))
        return suspects + sum(map(len, self.waiting_by_tenant.values()))

    @property
    def num_wakeups(self) -> int:
        """Length of Celery's list."""
        return len(self.keys.get(self.queue, ()))

    def kinds_held(self) -> dict[str, Counter[int]]:
        """How many attempts of each kind every worker holds."""
        held: dict[str, Counter[int]] = {}
        for attempt in self.attempts.values():
            held.setdefault(attempt.worker, Counter())[attempt.kind] += 1
        return held

    def parts(self) -> Iterator[tuple[str, int, str]]:
        """Every part of every record: task, part, state."""
        for task, record in self.tasks.items():
            for part in range(int(record["parts_total"])):
                yield task, part, record[f"p{part}:state"]


def _attempt(token: str, text: str) -> dict[str, Any]:
    found = json.loads(text)
    fields = {name: found[name] for name in ("task", "worker", "number", "kind")}
    return {**fields, "token": token, "part": int(found["part"])}


def check(state: QueueState, before: QueueState | None = None) -> None:
    """Raise ``AssertionError`` for what breaks a law.

    Args:
        state: Now.
        before: One script earlier; None where that isn't known.
    """
    for task, record in state.tasks.items():
        _check_record(task, record)
        _check_ends(state, task, record)
        if before and task in before.tasks:
            _check_move(before.tasks[task]["status"], record["status"])
    _check_places(state)
    _check_attempts(state)
    _check_company(state)
    _check_counts(state)


def _check_move(old: str, new: str) -> None:
    """One script may make two legal moves: a running task is canceling before it is canceled."""
    moves = LEGAL_MOVES[TaskStatus(old)]
    twice = set(chain.from_iterable(LEGAL_MOVES[move] for move in moves if not move.ended))
    assert old == new or new in moves | twice, f"{old} -> {new}"


def _check_record(task: str, record: Mapping[str, str]) -> None:
    total = int(record["parts_total"])
    states = Counter(record[f"p{part}:state"] for part in range(total))
    assert set(states) <= {"waiting", "running", *COUNTERS}, states
    for state, counter in COUNTERS.items():
        assert states[state] == int(record[counter]), (task, counter, states)
    status, stop = TaskStatus(record["status"]), record.get("stop", "")
    assert status.ended == (states["waiting"] + states["running"] == 0), (status, states)
    if status is TaskStatus.QUEUED:
        assert not states["running"]
        assert not stop
    if status is TaskStatus.CANCELING:
        assert stop == "cancel"
    if stop and not status.ended:
        assert states["running"], "a stopped task waits for its running parts and for nothing else"
        assert not states["waiting"], "a stopped task waits for its running parts and for nothing else"
    for part in range(total):
        _check_part(record, part)
    _check_status(record, status, states, stop)


def _check_part(record: Mapping[str, str], part: int) -> None:
    state, used = record[f"p{part}:state"], int(record[f"p{part}:attempts"])
    assert 0 <= used <= MAX_ATTEMPTS
    assert state != "waiting" or used < MAX_ATTEMPTS
    history = [json.loads(line) for line in record.get(f"p{part}:history", "").splitlines()]
    committed = sum(line["why"] == "succeeded" for line in history)
    assert committed <= 1, "a part has one result at most"
    if state == "succeeded":
        assert committed == 1
        assert f"p{part}:result" in record
    assert all(line["started_ms"] <= line["ended_ms"] for line in history)


def _check_status(record: Mapping[str, str], status: TaskStatus, states: Counter[str], stop: str) -> None:
    code = json.loads(record["error"])["code"] if "error" in record else None
    if status is TaskStatus.SUCCEEDED:
        assert set(states) == {"succeeded"}
        assert code is None
    if status is TaskStatus.FAILED:
        assert states["failed"]
        assert not stop
        assert code is not None
    if status is TaskStatus.CANCELED:
        assert stop == "cancel"
        assert code is None
    if status is TaskStatus.EXPIRED:
        assert stop == "deadline"
        assert code == "deadline_exceeded"


def _check_ends(state: QueueState, task: str, record: Mapping[str, str]) -> None:
    ended = TaskStatus(record["status"]).ended
    assert ended == ("ended_ms" in record) == ("expires_ms" in record)
    retention, deadlines = state.keys.get("ovis:retention", {}), state.keys.get("ovis:deadlines", {})
    assert ended == (task in retention)
    if ended:
        assert retention[task] == int(record["expires_ms"])
        assert int(record["expires_ms"]) == int(record["ended_ms"]) + 1000 * int(record["retention_s"])
        assert task not in deadlines
    elif "deadline_s" in record and not record.get("stop"):
        assert task in deadlines
    runs = Counter(entry["run"] for entry in outbox(state) if entry["task"] == task)
    finished = int(record["run"]) - (not ended)
    assert runs == (dict.fromkeys(range(1, finished + 1), 1) if "webhook" in record else {})


def outbox(state: QueueState) -> list[dict[str, Any]]:
    """The webhook events to deliver."""
    return [json.loads(entry) for entry in state.keys.get("ovis:outbox", ())]


def _check_places(state: QueueState) -> None:
    """Every waiting part is in one place, where its next attempt is claimed from; no other part is in any."""
    places: dict[str, list[str]] = {}
    for tenant, members in state.waiting_by_tenant.items():
        for member in members:
            places.setdefault(member, []).append(f"t:{tenant}")
    for suffix in ("suspects2", "suspects3", "delayed"):
        for member in state.of_queue(suffix):
            places.setdefault(member, []).append(suffix)
    for task, part, part_state in state.parts():
        found = places.pop(f"{task}/{part}", [])
        if part_state != "waiting":
            assert not found, (task, part, part_state, found)
            continue
        used = int(state.tasks[task][f"p{part}:attempts"])
        expected = f"suspects{used + 1}" if used else f"t:{state.tasks[task]['tenant']}"
        assert found in ([expected], ["delayed"]), (task, part, used, found)
    assert not places, f"no record has these parts: {places}"
    assert set(state.of_queue("tenants")) == set(state.waiting_by_tenant)
    assert all(score >= 0 for score in state.of_queue("tenants").values())


def _check_attempts(state: QueueState) -> None:
    """A running part has one attempt, that attempt has a lease, and there are no others."""
    assert set(state.keys.get("ovis:leases", {})) == set(state.attempts)
    of_part = {attempt.member: attempt for attempt in state.attempts.values()}
    assert len(of_part) == len(state.attempts), "two attempts of one part"
    running = {f"{task}/{part}" for task, part, part_state in state.parts() if part_state == "running"}
    assert running == set(of_part)
    for attempt in of_part.values():
        record = state.tasks[attempt.task]
        assert record[f"p{attempt.part}:token"] == attempt.token
        assert record[f"p{attempt.part}:attempts"] == str(attempt.number)
        assert attempt.kind == min(attempt.number, 3)


def _check_company(state: QueueState) -> None:
    for worker, kinds in state.kinds_held().items():
        assert not kinds[3] or kinds.total() == 1, f"{worker} holds a third attempt and others"
        assert not kinds[2] or not kinds[1], f"{worker} holds first and second attempts"
        assert kinds[2] <= MAX_SECOND_ATTEMPTS


def _check_counts(state: QueueState) -> None:
    stats = state.of_queue("stats")
    assert int(stats.get("waiting", 0)) == state.num_waiting
    assert int(stats.get("running", 0)) == len(state.attempts)
    held = {f"{kind}:{worker}": count for worker, kinds in state.kinds_held().items() for kind, count in kinds.items()}
    assert {name: int(count) for name, count in state.of_queue("held").items()} == held
    load: Counter[str] = Counter()
    for record in state.tasks.values():
        if not TaskStatus(record["status"]).ended:
            load[f"n:{record['tenant']}"] += 1
            load[f"t:{record['tenant']}"] += int(record.get("bytes", 0))
            load[f"q:{record['queue']}"] += int(record.get("bytes", 0))
    assert +Counter({name: int(value) for name, value in state.keys.get("ovis:load", {}).items()}) == +load
    assert set(state.keys.get("ovis:retention", {})) <= set(state.tasks)
    assert set(state.keys.get("ovis:deadlines", {})) <= set(state.tasks)
