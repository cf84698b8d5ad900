"""What the command shows of tasks, dead letters and models: tables and lines."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ovis_fleet.part_records import Estimate
from ovis_fleet.records import DeadLetter, Model, Problem, Task

_STATUS_STYLES = {"succeeded": "green", "failed": "red", "canceled": "magenta", "expired": "magenta"}


def status_text(status: str) -> Text:
    """Returns a task's status in its colour."""
    return Text(status, style=_STATUS_STYLES.get(status, "yellow"))


def task_table(task: Task) -> Table:
    """Returns what there is to say of a task, without its result's text."""
    table = Table.grid(padding=(0, 3))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    progress = task.progress
    rows: list[tuple[str, RenderableType | None]] = [
        ("task", task.id),
        ("status", status_text(task.status)),
        ("kind", task.kind),
        ("model", task.model),
        ("operation", task.operation),
        ("parts", f"{progress.parts_done} of {progress.parts_total} done, {progress.parts_failed} failed"),
        ("attempts", str(task.attempts) + (f" in {task.run} runs" if task.run > 1 else "")),
        ("accepted", _clock(task.created_at)),
        ("deadline", None if task.is_ended else _clock(task.deadline_at)),
        ("ended", _clock(task.ended_at)),
        ("took", None if task.duration_s is None else f"{task.duration_s:.1f} s"),
        ("tokens", usage_line(task)),
        ("result", task.result.location if task.result else None),
        ("error", task.error.summary() if task.error else None),
    ]
    for label, value in rows:
        if value:
            table.add_row(Text(label, style="dim"), value)
    return table


def usage_line(task: Task) -> str | None:
    """Returns what a task took, on one line; None when nothing is known."""
    usage = task.usage
    if usage is None:
        return None
    line = f"{usage.prompt_tokens} in ({usage.visual_tokens} visual), {usage.output_tokens} out"
    return f"{line}, {usage.gpu_seconds:.2f} device seconds"


def models_table(models: tuple[Model, ...]) -> Table:
    """Returns the models and how busy they are."""
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for heading in ("model", "size", "workers", "slots", "waiting"):
        table.add_column(heading, no_wrap=True)
    table.add_column("description", overflow="fold")
    for model in models:
        size = "" if model.params_b is None else f"{model.params_b:g} B"
        counts = ["?" if count is None else str(count) for count in (model.workers, model.slots, model.waiting)]
        table.add_row(model.id, size, *counts, model.description)
    return table


def dead_letters_table(letters: Iterable[DeadLetter]) -> Table:
    """Returns dead letters, one a line, with what ended the last attempt of each."""
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for heading in ("task", "model", "died", "attempts"):
        table.add_column(heading, no_wrap=True)
    table.add_column("last attempt ended by", overflow="fold")
    for letter in letters:
        task, why = letter.task, letter.history[-1].why if letter.history else ""
        table.add_row(task.id, task.model, _clock(task.ended_at), str(task.attempts), Text(why))
    return table


def history_table(letter: DeadLetter) -> Table:
    """Returns a dead letter's attempts, one a line."""
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for heading in ("attempt", "worker", "began", "ended"):
        table.add_column(heading, no_wrap=True)
    table.add_column("ended by", overflow="fold")
    for end in letter.history:
        table.add_row(str(end.attempt), Text(end.worker), _clock(end.started_at), _clock(end.ended_at), Text(end.why))
    return table


def tasks_table(tasks: Iterable[Task]) -> Table:
    """Returns tasks, one a line."""
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for heading in ("task", "status", "kind", "model", "operation", "parts", "accepted", "took"):
        table.add_column(heading, no_wrap=True)
    for task in tasks:
        progress = task.progress
        parts = f"{progress.parts_done}/{progress.parts_total}"
        parts += f" ({progress.parts_failed} failed)" if progress.parts_failed else ""
        took = "" if task.duration_s is None else f"{task.duration_s:.1f} s"
        names = (Text(task.kind), Text(task.model), Text(task.operation or ""))
        table.add_row(task.id, status_text(task.status), *names, parts, _clock(task.created_at), took)
    return table


def estimate_table(estimates: Mapping[str, Estimate]) -> Table:
    """Returns what tasks would take, by input."""
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("input", overflow="fold")
    for heading in ("parts", "tiles", "visual tokens", "most output tokens", "expected tokens", "expected seconds"):
        table.add_column(heading, justify="right")
    for label, estimate in estimates.items():
        counts = (estimate.parts, estimate.tiles, estimate.visual_tokens, estimate.max_output_tokens)
        tokens, seconds = estimate.expected_output_tokens, estimate.expected_seconds
        expected = ("?" if tokens is None else str(tokens), "?" if seconds is None else f"{seconds:.1f}")
        table.add_row(Text(label), *map(str, counts), *expected)
    return table


def failure_line(label: str, task: Task) -> str:
    """Returns why a task didn't succeed, on one line."""
    error = task.error or Problem(code=task.status, detail="the task did not succeed")
    return f"{label}: {task.status}: {error.summary()} (task {task.id})"


def _clock(moment: datetime | None) -> str | None:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else None
