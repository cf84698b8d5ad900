"""How an attempt ends, of a part or of a job: committed, failed, handed back. Every way out of one passes here."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Generic, Literal, Protocol, TypeVar

import redis
import stamina

from contract import store
from contract.errors import CallerError, FleetError, InternalError, StoreUnavailable
from contract.logs import get_logger
from contract.redis_io import run
from contract.scripting import Command
from contract.task import Claim
from workers.leases import Lease, Stopped, StopReason
from workers.retry_policy import Fail, decide

T = TypeVar("T")
C = TypeVar("C", bound=Claim)
_C = TypeVar("_C", bound=Claim, contravariant=True)

log = get_logger(__name__)

#: Seconds for which an outcome is offered to a Redis that is away. Past a few leases the work is done elsewhere.
_COMMIT_S = 60.0


class Finish(Protocol[_C]):
    """Makes the command that ends an attempt without a result."""

    def __call__(
        self, claim: _C, outcome: Literal["failed", "stopped"], /, *, error_json: str = ""
    ) -> Command[store.FinishOutcome]:
        """The command."""
        ...


class Settler(Generic[C]):
    """Brings attempts to their end. Any thread may call any method.

    Args:
        client: Thread-safe.
        finish: Ends an attempt of this kind.
    """

    def __init__(self, client: redis.Redis, finish: Finish[C]) -> None:
        self._client = client
        self._finish = finish

    def settle(self, lease: Lease[C], perform: Callable[[Lease[C]], str]) -> str:
        """Do the work, and end the attempt whatever comes of it; reply what did, for logs and metrics.

        Args:
            lease: The attempt's.
            perform: Does the work and commits it; may raise ``Stopped`` or any error.
        """
        try:
            return perform(lease)
        except Stopped:
            return self._stopped(lease)
        except FleetError as exc:
            return self._failed(lease, exc)
        except Exception as exc:
            log.exception("attempt_broke", **lease.attempt.log_fields)
            return self._failed(lease, InternalError(f"the worker broke: {type(exc).__name__}"))

    def commit(self, command: Command[T], outcome: str) -> T | str:
        """Commit ``outcome``, waiting for a Redis that is away; the token decides whether it still counts.

        Returns:
            ``outcome`` where it was committed, else what the script says, or "store_unavailable".
        """
        try:
            for retry in stamina.retry_context(on=StoreUnavailable, attempts=None, timeout=_COMMIT_S, wait_max=2.0):
                with retry:
                    committed = run(self._client, command)
        except StoreUnavailable:
            log.warning("commit_failed", outcome=outcome)
            return "store_unavailable"
        return outcome if committed == "committed" else committed

    def _failed(self, lease: Lease[C], error: FleetError) -> str:
        claim = lease.attempt
        if lease.stop_reason and not isinstance(error, CallerError):  # most likely the stop itself made the work fail
            return self._stopped(lease)
        # Not a secret: it only spreads retries.
        decision = decide(error, claim.claims, random.random())  # noqa: S311
        log.warning("attempt_failed", **claim.log_fields, code=error.code, decision=str(decision))
        if isinstance(decision, Fail):
            error_json = error.info().model_dump_json()
            return self.commit(self._finish(claim, "failed", error_json=error_json), "failed")
        return self._release(claim, error.code, counts=decision.counts, delay_s=decision.rest_s)

    def _stopped(self, lease: Lease[C]) -> str:
        if lease.stop_reason is StopReason.DRAINED:
            return self._release(lease.attempt, "drained", counts=False)
        if lease.stop_reason is StopReason.CANCELED:
            return self.commit(self._finish(lease.attempt, "stopped"), "stopped")
        return "lost"

    def _release(self, claim: C, why: str, *, counts: bool, delay_s: float = 0.0) -> str:
        command = store.release(claim.token, why, counts=counts, delay_s=delay_s)
        try:
            return f"released_{run(self._client, command)}"
        except StoreUnavailable:
            return "store_unavailable"  # the lease runs out and the reaper takes the work back
