"""``ovis-fleet submit``: one task for each input, followed to their ends."""

from dataclasses import dataclass
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ovis_fleet.client import Client
from ovis_fleet.display import failure_line, print_lines, to_json
from ovis_fleet.following import follow
from ovis_fleet.records import Task
from ovis_fleet.sources import Submission, kind_of


@dataclass(frozen=True)
class Order:
    """What the caller wants done.

    Attributes:
        inputs: files and addresses, each for a task of its own; none for a text-only task.
        model: which model does them.
        operation: what is asked; when None and without a prompt the gateway's choice for the kind.
        prompt: instead of the operation's own.
        deadline_s: how long each task may take before it expires; None for as long as it takes.
        kind: image, document or video; None goes by the name of each input.
    """

    inputs: tuple[str, ...]
    model: str
    operation: str | None
    prompt: str | None
    deadline_s: int | None = None
    kind: str | None = None

    def submit(self, client: Client) -> dict[str, Task]:
        """Hands in the tasks and returns them by input, in order.

        Raises:
            SourceError: for an input that can't be handed in; none has been by then.
        """
        for item in self.inputs:
            Submission.of({}, item)
        submit = partial(client.submit, model=self.model, prompt=self.prompt, deadline_s=self.deadline_s)
        if not self.inputs:
            return {"text": submit(kind="text")}
        kinds = {item: self.kind or kind_of(item) for item in self.inputs}
        return {item: submit(item, kind=kind, operation=self.operation) for item, kind in kinds.items()}


def submit_all(client: Client, order: Order, *, timeout_s: float | None, as_json: bool) -> bool:
    """Hands in an order and prints what comes of it: results to the standard output, all else to the error output.

    Args:
        client: where to.
        order: what.
        timeout_s: how long to wait for the ends; None to print the ids at once.
        as_json: print the tasks as lines of JSON instead of ids or texts.

    Returns:
        whether all tasks succeeded, or were accepted when there was no waiting.
    """
    output, notes = Console(), Console(stderr=True)
    tasks = order.submit(client)
    if timeout_s is None:
        print_lines(output, [to_json(task) if as_json else task.id for task in tasks.values()])
        return True
    ended = _follow(client, tasks, timeout_s, notes)
    for label, task in ended.items():
        if as_json:
            print_lines(output, [to_json(task)])
        if task.status != "succeeded":
            print_lines(notes, [failure_line(label, task)])
        elif not as_json:
            failed = task.progress.parts_failed
            missing = f", {failed} of {task.progress.parts_total} parts failed" if failed else ""
            print_lines(notes, [f"{label}: {task.status}{missing} in {task.duration_s or 0:.1f} s (task {task.id})"])
            print_lines(output, [(task.result.text if task.result else "") or client.result(task.id, "text")])
    return all(task.status == "succeeded" for task in ended.values())


def _follow(client: Client, tasks: dict[str, Task], timeout_s: float, notes: Console) -> dict[str, Task]:
    parts = (BarColumn(), MofNCompleteColumn())
    columns = (SpinnerColumn(), TextColumn("{task.description}"), *parts, TimeElapsedColumn())
    with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as progress:
        rows = {label: progress.add_task(label, total=1) for label in tasks}

        def show(label: str, task: Task) -> None:
            total = max(1, task.progress.parts_total)
            done = total if task.is_ended else task.progress.parts_done + task.progress.parts_failed
            progress.update(rows[label], description=f"{label} {task.status}", completed=done, total=total)

        return follow(client, tasks, show, timeout_s)
