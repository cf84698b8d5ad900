"""Lua scripts as data: a script behind the shared prelude, and a ``Command`` that says how to call it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Generic, TypeVar

from contract.errors import AttemptsExhausted, DeadlineExceeded
from contract.wakeups import WAKEUP_MESSAGE

T_co = TypeVar("T_co", covariant=True)

#: How long a claim stands without renewal.
LEASE_MS = 15_000
#: How often a worker renews.
RENEWAL_S = 3.0
#: How often leases are looked at and wake-ups topped up.
REAP_S = 1.0
#: Tries of a part before it is dead-lettered.
MAX_ATTEMPTS = 3
#: Time in a slot, outside the engine, for which a part is charged all that its claim did, tokens or not.
FULL_CHARGE_MS = 10_000
#: How long a worker sees to suspects without a heartbeat.
QUARANTINE_MS = 6_000
#: How long a day's usage of a tenant is kept.
USAGE_S = 100 * 86_400
#: Second attempts that share an engine; a third attempt runs alone.
MAX_SECOND_ATTEMPTS = 4
#: Events kept per task for those who follow it, token deltas included; the oldest go first.
MAX_EVENTS = 10_000

#: Seconds that a webhook delivery may take from the event to its last try; the schedule needs 76 hours.
DELIVERY_LIFE_S = 5 * 86_400
#: Seconds for which an ended delivery stays in the log.
DELIVERY_LOG_S = 3 * 86_400
#: Deliveries that one receiver gets at once; one that failed last gets them one by one.
MAX_SENDING = 4
#: How long a delivery is a sender's; above the time of one exchange and a slow look-up of its host.
SENDING_LEASE_MS = 60_000
#: Failures in a row after which a receiver rests, how long at first, and how long at most.
FAILURES_TO_REST = 5
FIRST_REST_MS = 30_000
LONGEST_REST_MS = 600_000

#: How soon a batch is looked at after one of its lines has ended: lines that end together are replaced together.
BATCH_REFILL_MS = 1_000
#: How soon a file is looked at again whose time is over, but which a batch still reads.
RETENTION_LATER_MS = 60_000

#: Scripts that take something new on: a full Redis refuses these, and nothing else.
_ACCEPTING = {"submit", "estimate_ask", "file_add", "batch_create"}

#: Constants that the webhook scripts share.
_WEBHOOK_CONSTANTS = (
    f"local DELIVERY_LIFE_S = {DELIVERY_LIFE_S}\nlocal DELIVERY_LOG_S = {DELIVERY_LOG_S}\n"
    f"local MAX_SENDING = {MAX_SENDING}\nlocal SENDING_LEASE_MS = {SENDING_LEASE_MS}\n"
    f"local FAILURES_TO_REST = {FAILURES_TO_REST}\n"
    f"local FIRST_REST_MS = {FIRST_REST_MS}\nlocal LONGEST_REST_MS = {LONGEST_REST_MS}\n"
)


@dataclass(frozen=True)
class Script:
    """One Lua script, whole."""

    name: str
    source: str
    sha: str


@dataclass(frozen=True)
class Command(Generic[T_co]):
    """One change: a script, its arguments, and what its reply means."""

    script: Script
    args: tuple[str | int | float, ...]
    parse: Callable[[Any], T_co]


def _lua_text(value: str) -> str:
    return f"[==[{value}]==]"


@cache
def load_script(name: str) -> Script:
    """The script ``contract/scripts/<name>.lua`` behind the shared prelude and the constants."""
    exhausted = AttemptsExhausted(f"all {MAX_ATTEMPTS} attempts ended without a result")
    late = DeadlineExceeded("the task's deadline passed before it was done")
    # A full Redis refuses new work only: what brings accepted tasks to their end may use the last memory.
    flags = "" if name in _ACCEPTING else "#!lua flags=allow-oom\n"
    constants = (
        f"{flags}local LEASE_MS = {LEASE_MS}\nlocal QUARANTINE_MS = {QUARANTINE_MS}\n"
        f"local MAX_ATTEMPTS = {MAX_ATTEMPTS}\nlocal MAX_SECOND_ATTEMPTS = {MAX_SECOND_ATTEMPTS}\n"
        f"local MAX_EVENTS = {MAX_EVENTS}\nlocal FULL_CHARGE_MS = {FULL_CHARGE_MS}\n"
        f"local USAGE_S = {USAGE_S}\n"
        f"local BATCH_REFILL_MS = {BATCH_REFILL_MS}\nlocal RETENTION_LATER_MS = {RETENTION_LATER_MS}\n"
        f"local DEADLINE_ERROR = {_lua_text(late.info().model_dump_json())}\n"
        f"local WAKEUP_MESSAGE = {_lua_text(WAKEUP_MESSAGE)}\n"
        f"local EXHAUSTED_ERROR = {_lua_text(exhausted.info().model_dump_json())}\n"
    )
    folder = resources.files("contract") / "scripts"
    shared = (folder / "prelude.lua").read_text()
    if name.startswith("webhook_"):
        shared += _WEBHOOK_CONSTANTS + (folder / "webhooks.lua").read_text()
    if name.startswith(("batch_", "file_")):
        shared += (folder / "batches.lua").read_text()
    source = constants + shared + (folder / f"{name}.lua").read_text()
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())
