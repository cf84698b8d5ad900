"""Any order of submit, claim, renew, expire, release, finish, cancel, retry and purge keeps the laws, on a real Valkey.

Time passes by writing scores, never by sleeping.
"""

from __future__ import annotations

from collections import Counter

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from contract import store
from contract.redis_io import run
from contract.task import PartResult, Usage
from tests.contract.queue_machine import QUEUE, CallersMachine, Held, which
from tests.contract.queue_state import QueueState

WORKERS = ("w1", "w2", "w3")
SLOTS = 2
RESULT = PartResult(
    text="hello", finish_reason="stop", blob_key="results/x", usage=Usage(visual_tokens=576, output_tokens=24)
)
ERROR = '{"code":"not_an_image","detail":"no picture","retryable":false}'


class QueueMachine(CallersMachine):
    """Adds three workers, time, and trouble."""

    @rule(worker=st.sampled_from(WORKERS), times=st.integers(1, 5))
    def claim(self, worker, times) -> None:
        self._claim(worker, times)

    def _claim(self, worker, times) -> None:
        """Claim until nothing is given, ``times`` at most."""
        for _ in range(times):
            token = f"token-{len(self.told.held)}-{worker}"
            state = QueueState.read(self.client, QUEUE)
            attempt = run(self.client, store.claim(QUEUE, token=token, worker=worker))
            if attempt is None:
                self._assert_nothing_for(state, worker)
                return
            assert attempt.tenant == self.told.submissions[attempt.task_id].tenant
            self.told.held[token] = Held(attempt, worker)
            self.told.claims[attempt.task_id] += 1

    def _assert_nothing_for(self, state: QueueState, worker: str) -> None:
        """A claim that gave nothing left nothing that the worker might have had."""
        kinds = state.kinds_held().get(worker, Counter())
        if kinds[3] or kinds[2] == 4:
            return
        if kinds[2]:
            assert not state.of_queue("suspects2")
            return
        keeper = state.keys.get(f"ovis:q:{QUEUE}:quarantine")
        suspects = len(state.of_queue("suspects2")) + len(state.of_queue("suspects3"))
        if suspects and keeper in (None, worker):
            assert kinds[1], "an empty worker in quarantine takes a suspect"
        else:
            assert not state.waiting_by_tenant

    @precondition(lambda self: self.live)
    @rule(index=which)
    def claim_again_as_after_a_lost_reply(self, index) -> None:
        held = self.told.held[self.pick(self.live, index)]
        again = run(self.client, store.claim(QUEUE, token=held.attempt.token, worker=held.worker))
        assert again is not None
        assert (again.task_id, again.part, again.number) == (
            held.attempt.task_id,
            held.attempt.part,
            held.attempt.number,
        )

    @rule(worker=st.sampled_from(WORKERS))
    def renew(self, worker) -> None:
        tokens = [token for token, held in self.told.held.items() if held.worker == worker]
        replies = run(self.client, store.renew(QUEUE, worker, SLOTS, tokens))
        live = set(self.live)
        for token, reply in replies.items():
            assert (reply == "lost") == (token not in live)
            if reply != "lost":
                stopping = self.field_of(self.told.held[token].attempt.task_id, "stop")
                assert (reply == "stop") == bool(stopping)

    @precondition(lambda self: self.told.held)
    @rule(index=which, outcome=st.sampled_from(("succeeded", "succeeded", "failed", "stopped")))
    def finish(self, index, outcome) -> None:
        """By any attempt that ever was: in time, late, or again."""
        held = self.told.held[self.pick(list(self.told.held), index)]
        task = held.attempt.task_id
        live, stopping = held.attempt.token in self.live, bool(self.field_of(task, "stop"))
        state = self.field_of(task, f"p{held.attempt.part}:state")
        good = outcome == "succeeded"
        reply = run(
            self.client,
            store.finish(
                held.attempt, outcome, result=RESULT if good else None, error_json=ERROR if outcome == "failed" else ""
            ),
        )
        if live:
            held.outcome = "canceled" if stopping else "stale" if outcome == "stopped" else "committed"
            assert reply == held.outcome
            return
        assert self.field_of(task, f"p{held.attempt.part}:state") == state, "a late commit changes nothing"
        assert reply in ("stale", held.outcome), "a late attempt was told that its result counts"

    @precondition(lambda self: self.told.held)
    @rule(index=which, counts=st.booleans(), delay_s=st.sampled_from((0.0, 0.0, 60.0)))
    def release(self, index, counts, delay_s) -> None:
        held = self.told.held[self.pick(list(self.told.held), index)]
        live = held.attempt.token in self.live
        stopping = bool(self.field_of(held.attempt.task_id, "stop"))
        reply = run(self.client, store.release(held.attempt.token, "drained", counts=counts, delay_s=delay_s))
        if not live:
            assert reply == "stale"
        elif stopping:
            assert reply == "canceled"
        else:
            assert reply == ("exhausted" if counts and held.attempt.number == 3 else "queued")

    @rule(worker=st.sampled_from(WORKERS))
    def leave(self, worker) -> None:
        run(self.client, store.leave(QUEUE, worker))
        assert worker not in self.client.hkeys(f"ovis:q:{QUEUE}:slots")

    # Time and trouble --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.live)
    @rule(index=which, everybody=st.booleans())
    def leases_run_out(self, index, everybody) -> None:
        self._run_out(self.live if everybody else [self.pick(self.live, index)])

    def _run_out(self, lost: list[str]) -> None:
        if lost:
            self.client.zadd("ovis:leases", dict.fromkeys(lost, 1))
        expired = run(self.client, store.expire_leases())
        assert (expired.extended, expired.requeued + expired.exhausted) == (0, len(lost))

    @precondition(lambda self: self.live)
    @rule(index=which)
    def a_worker_loses_one_of_its_attempts_and_claims_on(self, index) -> None:
        token = self.pick(self.live, index)
        self._claim(self.told.held[token].worker, 3)
        self._run_out([token])
        self.the_laws_hold()
        self._claim(self.told.held[token].worker, 3)

    @rule(worker=st.sampled_from(WORKERS), times=st.integers(1, 6))
    def a_worker_dies_again_and_again(self, worker, times) -> None:
        for _ in range(times):
            self._claim(worker, 5)
            self.the_laws_hold()
            own = [token for token in self.live if self.told.held[token].worker == worker]
            self._run_out(own)
            self.the_laws_hold()

    @rule()
    def every_io_worker_is_away_for_long(self) -> None:
        live = self.live
        self.client.set(store.REAPER_KEY, 1)
        if live:
            self.client.zadd("ovis:leases", dict.fromkeys(live, 1))
        assert run(self.client, store.expire_leases()) == store.Expired(len(live), 0, 0)
        assert run(self.client, store.expire_leases()) == store.Expired(0, 0, 0)

    @rule()
    def deadlines_pass(self) -> None:
        due = self.client.zrange("ovis:deadlines", 0, -1)
        if due:
            self.client.zadd("ovis:deadlines", dict.fromkeys(due, 1))
        assert run(self.client, store.expire_deadlines()) == len(due)
        assert not self.client.exists("ovis:deadlines")

    @rule()
    def resting_parts_have_rested(self) -> None:
        resting = self.client.zrange(f"ovis:q:{QUEUE}:delayed", 0, -1)
        if resting:
            self.client.zadd(f"ovis:q:{QUEUE}:delayed", dict.fromkeys(resting, 1))
        self._top_up()
        assert not self.client.exists(f"ovis:q:{QUEUE}:delayed")

    @rule(worker=st.sampled_from(WORKERS))
    def a_worker_falls_silent(self, worker) -> None:
        if self.client.zscore(f"ovis:q:{QUEUE}:workers", worker) is not None:
            self.client.zadd(f"ovis:q:{QUEUE}:workers", {worker: 1})
            assert self._top_up() == 1

    @rule()
    def the_quarantine_ends(self) -> None:
        self.client.delete(f"ovis:q:{QUEUE}:quarantine")

    @rule(delivered=st.booleans())
    def wakeups_get_lost_or_doubled(self, delivered) -> None:
        if delivered and (messages := self.client.lrange(QUEUE, 0, -1)):
            self.client.lpush(QUEUE, *messages)
        else:
            self.client.delete(QUEUE)

    @rule()
    def top_up(self) -> None:
        self._top_up()

    def _top_up(self) -> int:
        listed = self.client.llen(QUEUE)
        pushed, forgotten = run(self.client, store.top_up(QUEUE))
        state = QueueState.read(self.client, QUEUE)
        slots = max(1, int(state.of_queue("stats").get("slots", 0)))
        assert state.num_wakeups == listed + pushed
        assert state.num_wakeups == max(listed, min(state.num_waiting, 2 * slots))
        assert int(state.of_queue("stats")["delayed"]) == len(state.of_queue("delayed"))
        return forgotten


def drive(client: redis.Redis, *, examples: int, steps: int, derandomize: bool) -> None:
    run_state_machine_as_test(
        lambda: QueueMachine(client),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=derandomize,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        ),
    )


def test_any_order_of_changes_keeps_the_laws(client: redis.Redis) -> None:
    drive(client, examples=100, steps=50, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_any_order_of_changes_keeps_the_laws_for_long(client: redis.Redis) -> None:
    drive(client, examples=3000, steps=80, derandomize=False)
