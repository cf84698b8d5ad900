"""Following tasks until they end."""

import time
from collections.abc import Callable, Mapping

from ovis_fleet.client import Client
from ovis_fleet.errors import TaskTimeoutError, UnreachableError
from ovis_fleet.records import Task

#: Between two looks at all tasks that run: short enough to see most states pass.
_POLL_INTERVAL_S = 0.1


def follow(
    client: Client, tasks: Mapping[str, Task], on_change: Callable[[str, Task], None], timeout_s: float
) -> dict[str, Task]:
    """Looks at tasks until all have ended.

    Args:
        client: the tasks' gateway.
        tasks: by a label of the caller's.
        on_change: told of each task's first status and of each change.
        timeout_s: for all together.

    Returns:
        the ended tasks under the same labels, in the same order.

    Raises:
        TaskTimeoutError: when one hasn't ended in time.
        UnreachableError: when the gateway is away at that moment.
    """
    seen = dict(tasks)
    for label, task in seen.items():
        on_change(label, task)
    deadline = time.monotonic() + timeout_s
    while running := [label for label, task in seen.items() if not task.is_ended]:
        if time.monotonic() > deadline:
            raise TaskTimeoutError(f"{', '.join(running)} still running after {timeout_s:.0f} s")
        time.sleep(_POLL_INTERVAL_S)
        for label in running:
            before = seen[label]
            try:
                seen[label] = client.get(before.id)
            except UnreachableError:
                # The tasks were accepted: a gateway that is away for a while changes nothing for them.
                if time.monotonic() > deadline:
                    raise
                break
            if (seen[label].status, seen[label].progress) != (before.status, before.progress):
                on_change(label, seen[label])
    return seen
