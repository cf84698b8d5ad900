"""Run a ``Command`` on Redis, from sync code (workers) or async code (the gateway).

The caller of a room never sees a driver's error: a Redis that is away, or busy with itself, is ``StoreUnavailable``; a
script that fails is our own fault, an ``InternalError``, and the log has its name.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import redis
import redis.asyncio
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    ClusterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

from contract.errors import InternalError, ServiceError, StoreFull, StoreUnavailable
from contract.logs import get_logger
from contract.scripting import Command, Script

T = TypeVar("T")

log = get_logger(__name__)

#: What a sound Redis answers for a while: it fails over, can't write its disk or its replicas, or a script is slow. One
#: that loads its data (LOADING) is a lost connection to the driver.
_PASSING = (ReadOnlyError, ClusterDownError, TryAgainError)
_PASSING_CODES = ("BUSY", "MISCONF", "NOREPLICAS", "UNKILLABLE", "READONLY", "CLUSTERDOWN", "TRYAGAIN")

#: Seconds that one command may take before its connection counts as dead.
SOCKET_TIMEOUT_S = 3.0

#: Connections of one asyncio client; commands take well under a millisecond each.
MAX_CONNECTIONS = 64


def connect(url: str) -> redis.Redis:
    """A thread-safe client that retries a lost connection for about three seconds. Opens nothing yet."""
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=SOCKET_TIMEOUT_S,
        retry=Retry(ExponentialWithJitterBackoff(cap=1.0, base=0.1), retries=4),
        health_check_interval=5,
    )


def connect_async(url: str) -> redis.asyncio.Redis:
    """An asyncio client that retries once, so that a gateway answers 503 quickly. Opens nothing yet.

    Commands beyond the pool's connections wait for one; the default pool would fail them.
    """
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=SOCKET_TIMEOUT_S,
        decode_responses=True,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=1.0,
        retry=redis.asyncio.retry.Retry(ExponentialWithJitterBackoff(cap=0.2, base=0.05), retries=1),
        health_check_interval=5,
    )
    return redis.asyncio.Redis.from_pool(pool)


def server_ms(client: redis.Redis) -> int:
    """Milliseconds since 1970 by the clock of Redis, the only one that counts; raises the driver's errors."""
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def _failure(exc: Exception, script: Script) -> ServiceError:
    """The error of ours for a driver's, whose text may lack the code."""
    if isinstance(exc, OutOfMemoryError):
        return script_failure(script.name, "OOM")
    if isinstance(exc, ResponseError) and not isinstance(exc, _PASSING):
        return script_failure(script.name, str(exc))
    return StoreUnavailable("the queue can't be reached; try again later")


def script_failure(script: str, said: str) -> ServiceError:
    """The error of ours for what Redis said when a script failed; a fault of ours is logged with the script's name."""
    if said.startswith("OOM"):
        return StoreFull("the queue's memory is full; try again later")
    if said.startswith(_PASSING_CODES):
        return StoreUnavailable("the queue can't be reached; try again later")
    log.error("script_failed", script=script, error=said)
    return InternalError("a change of the queue failed")


def run(client: redis.Redis, command: Command[T]) -> T:
    """Run ``command``.

    Raises:
        StoreUnavailable: Redis is away.
        StoreFull: Redis is out of memory; nothing was changed.
        InternalError: The script failed; what it did before stands.
    """
    script = command.script
    args = [str(arg) for arg in command.args]
    try:
        try:
            reply = client.evalsha(script.sha, 0, *args)
        except NoScriptError:
            reply = client.eval(script.source, 0, *args)
    except RedisError as exc:
        raise _failure(exc, script) from exc
    return command.parse(reply)


async def run_async(client: redis.asyncio.Redis, command: Command[T]) -> T:
    """Run ``command``.

    Raises:
        StoreUnavailable: Redis is away.
        StoreFull: Redis is out of memory; nothing was changed.
        InternalError: The script failed; what it did before stands.
    """
    script = command.script
    args = [str(arg) for arg in command.args]
    try:
        try:
            reply = await cast(Any, client.evalsha(script.sha, 0, *args))
        except NoScriptError:
            reply = await cast(Any, client.eval(script.source, 0, *args))
    except (RedisError, OSError) as exc:
        raise _failure(exc, script) from exc
    return command.parse(reply)
