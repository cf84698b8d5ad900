"""``ovis-fleet watch``: a task's events as they come."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ovis_fleet.client import Client
from ovis_fleet.display import print_lines, to_json
from ovis_fleet.part_records import Event
from ovis_fleet.task_tables import failure_line


def watch_task(client: Client, task_id: str, *, as_json: bool) -> bool:
    """Prints a task's events until its run has ended; text that is being written only as JSON.

    Args:
        client: of the task's gateway.
        task_id: which.
        as_json: print each event as a line of JSON.

    Returns:
        whether the task succeeded.
    """
    output, notes = Console(), Console(stderr=True)
    with parts_progress(notes) as progress:
        row = progress.add_task(task_id, total=None)
        for event in client.events(task_id):
            if as_json:
                print_lines(output, [to_json(event)])
            elif line := _line(event):
                print_lines(output, [line])
            output.file.flush()
            if notes.is_terminal and event.kind in ("status", "part"):
                task = client.get(task_id)
                done = task.progress.parts_done + task.progress.parts_failed
                progress.update(row, completed=done, total=task.progress.parts_total or None, description=task.status)
    task = client.get(task_id)
    if task.status != "succeeded":
        print_lines(notes, [failure_line(task.id, task)])
    return task.status == "succeeded"


def parts_progress(console: Console) -> Progress:
    """Returns a display of tasks and how many of their parts are done; nothing where no terminal is."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal)


def _line(event: Event) -> str | None:
    if event.kind == "status":
        return f"status {event.status}" + (f" (run {event.run})" if event.run > 1 else "")
    return f"part {event.part} {event.state}" if event.kind == "part" else None
