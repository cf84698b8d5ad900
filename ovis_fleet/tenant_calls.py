"""Operations on dead letters, models, use and limits, as flows that both clients run."""

from ovis_fleet.records import DeadLetter, Model, Page, Task
from ovis_fleet.task_calls import run_again
from ovis_fleet.tenant_records import Limits, UsageReport
from ovis_fleet.wire import Flow, ask, path_of, read_page, read_record

_DEAD_LETTERS = "/v1/dead-letters"


def dead_letter_page(cursor: str | None = None, *, limit: int | None = None) -> Flow[Page[DeadLetter]]:
    """Reads the tenant's dead letters, the last to die first; they may be handled meanwhile.

    Args:
        cursor: an earlier page's ``next_cursor``.
        limit: how many on a page; the gateway's own number by default.
    """
    params = {"limit": limit, "cursor": cursor}
    return read_page((yield from ask("GET", _DEAD_LETTERS, params=params)), DeadLetter)


def dead_letter(task_id: str) -> Flow[DeadLetter]:
    """Reads a dead letter with the history of its attempts."""
    return read_record((yield from ask("GET", path_of(_DEAD_LETTERS, task_id))), DeadLetter)


def replay(task_id: str, *, idempotency_key: str | None = None) -> Flow[Task]:
    """Runs a dead letter again, with all its attempts before it.

    Args:
        task_id: which.
        idempotency_key: calls with the same key make one run; a new one by default.
    """
    return (yield from run_again(path_of(_DEAD_LETTERS, task_id, "replay"), idempotency_key))


def discard(task_id: str) -> Flow[None]:
    """Takes a task off the dead letters; it stays failed until it is purged."""
    yield from ask("DELETE", path_of(_DEAD_LETTERS, task_id))


def models() -> Flow[tuple[Model, ...]]:
    """Reads which models the tenant may use, and how busy they are."""
    return read_page((yield from ask("GET", "/v1/models")), Model).items


def usage(days: int = 30) -> Flow[UsageReport]:
    """Reads what the tenant's tasks used in so many days (1 to 92), today included."""
    return read_record((yield from ask("GET", "/v1/usage", params={"days": days})), UsageReport)


def limits() -> Flow[Limits]:
    """Reads the tenant's limits, and what of them is taken now."""
    return read_record((yield from ask("GET", "/v1/limits")), Limits)
