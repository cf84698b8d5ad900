"""``ovis-fleet submit``: one task for each input, followed to their ends."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from rich.console import Console

from ovis_fleet.client import Client
from ovis_fleet.display import print_lines, to_json
from ovis_fleet.following import follow
from ovis_fleet.part_records import Estimate
from ovis_fleet.records import Task
from ovis_fleet.sources import Submission, kind_of
from ovis_fleet.task_calls import TextFormat
from ovis_fleet.task_tables import failure_line
from ovis_fleet.watching import parts_progress

T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    """What the caller wants done.

    Attributes:
        inputs: files and addresses, each for a task of its own; none for a text-only task.
        model: which model does them.
        operation: what is asked; when None the gateway's choice for the kind.
        prompt: instead of the operation's own.
        kind: image, document or video; None goes by the name of each input.
        fields: what else goes into each task.
    """

    inputs: tuple[str, ...]
    model: str
    operation: str | None
    prompt: str | None
    kind: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def with_fields(self, **fields: Any) -> "Order":
        """Returns the order with more in each task; what is None is left to the gateway."""
        return replace(self, fields={**self.fields, **fields})

    def submit(self, client: Client) -> dict[str, Task]:
        """Hands in the tasks and returns them by input, in order.

        Raises:
            SourceError: for an input that can't be handed in; none has been by then.
        """
        return self._each(client.submit)

    def estimate(self, client: Client) -> dict[str, Estimate]:
        """Asks what the tasks would take, and returns it by input, in order.

        Raises:
            SourceError: for an input that can't be handed in.
        """
        return self._each(client.estimate)

    def _each(self, do: Callable[..., T]) -> dict[str, T]:
        """Does something with each task; with none before all inputs are found good."""
        for item in self.inputs:
            Submission.of({}, item)
        fields = {"model": self.model, "prompt": self.prompt, **self.fields}
        if not self.inputs:
            return {"text": do(kind="text", **fields)}
        return {
            item: do(item, kind=self.kind or kind_of(item), operation=self.operation, **fields) for item in self.inputs
        }


def submit_all(client: Client, order: Order, *, timeout_s: float | None, as_json: bool, form: TextFormat) -> bool:
    """Hands in an order and prints what comes of it: results to the standard output, all else to the error output.

    Args:
        client: where to.
        order: what.
        timeout_s: how long to wait for the ends; None to print the ids at once.
        as_json: print the tasks as one JSON document instead of ids or texts.
        form: of the printed results.

    Returns:
        whether all tasks succeeded, or were accepted when there was no waiting.
    """
    output = Console()
    tasks = order.submit(client)
    ended = tasks if timeout_s is None else _follow(client, tasks, timeout_s)
    if as_json:
        print_lines(output, [to_json({"data": list(ended.values())})])
    elif timeout_s is None:
        print_lines(output, [task.id for task in tasks.values()])
    if timeout_s is None:
        return True
    for label, task in ended.items():
        _print_end(client, label, task, None if as_json else form)
    return all(task.status == "succeeded" for task in ended.values())


def _print_end(client: Client, label: str, task: Task, form: TextFormat | None) -> None:
    """Prints what a task came to; its result too where a form is given."""
    output, notes = Console(), Console(stderr=True)
    if task.status != "succeeded":
        print_lines(notes, [failure_line(label, task)])
    elif form is not None:
        failed = task.progress.parts_failed
        missing = f", {failed} of {task.progress.parts_total} parts failed" if failed else ""
        print_lines(notes, [f"{label}: {task.status}{missing} in {task.duration_s or 0:.1f} s (task {task.id})"])
        short = task.result.text if task.result and form == "text" else ""
        print_lines(output, [short or client.result(task.id, form)])


def _follow(client: Client, tasks: dict[str, Task], timeout_s: float) -> dict[str, Task]:
    with parts_progress(Console(stderr=True)) as progress:
        rows = {label: progress.add_task(label, total=1) for label in tasks}

        def show(label: str, task: Task) -> None:
            total = max(1, task.progress.parts_total)
            done = total if task.is_ended else task.progress.parts_done + task.progress.parts_failed
            progress.update(rows[label], description=f"{label} {task.status}", completed=done, total=total)

        return follow(client, tasks, show, timeout_s)
