"""What the command shows: parts of a stack, tasks, dead letters, models; live on a terminal, plain lines elsewhere."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterable, Iterator
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ovis_fleet.parts import PartState
from ovis_fleet.records import DeadLetter, Model, Problem, Task

_PART_STYLES = {
    PartState.WAITING: "dim",
    PartState.STARTING: "yellow",
    PartState.READY: "green",
    PartState.DIED: "bold red",
    PartState.STOPPING: "yellow",
    PartState.STOPPED: "dim",
}

_STATUS_STYLES = {"succeeded": "green", "failed": "red", "canceled": "magenta", "expired": "magenta"}

_REFRESHES_PER_SECOND = 8


class StackView:
    """Shows the parts of a stack as their states change. Any thread may report a change."""

    def __init__(self, console: Console) -> None:
        """Shows nothing yet.

        Args:
            console: where to.
        """
        self._console = console
        self._states: dict[str, PartState] = {}
        self._since: dict[str, float] = {}
        self._notice: RenderableType = Text("")

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Keeps the view current; on a terminal it redraws itself."""
        if not self._console.is_terminal:
            yield
            return
        with Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=_REFRESHES_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            yield

    def report(self, name: str, state: PartState) -> None:
        """Takes note of a part's new state; a stack's ``on_state``."""
        if self._states.get(name) is state:
            return
        self._states[name] = state
        self._since[name] = time.monotonic()
        if not self._console.is_terminal and state is not PartState.WAITING:
            self._console.print(f"{name} {state}", highlight=False)

    def notice(self, lines: list[str]) -> None:
        """Shows lines under the parts."""
        if self._console.is_terminal:
            self._notice = Text("\n" + "\n".join(lines))
        else:
            print_lines(self._console, lines)

    def _render(self) -> RenderableType:
        table = Table.grid(padding=(0, 3))
        for name, state in list(self._states.items()):
            elapsed_s = time.monotonic() - self._since[name]
            clock = f"{elapsed_s:.0f} s" if state in (PartState.STARTING, PartState.STOPPING) else ""
            table.add_row(f"  {name}", Text(state, style=_PART_STYLES[state]), Text(clock, style="dim"))
        return Group(table, self._notice)


def print_lines(console: Console, lines: list[str]) -> None:
    """Prints lines as they are: neither wrapped nor coloured, and with the form feeds between a document's pages."""
    for line in lines:
        console.file.write(f"{line}\n")


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


def to_json(record: Task | DeadLetter) -> str:
    """Returns a task or a dead letter as one line of JSON."""
    return json.dumps(dataclasses.asdict(record), default=datetime.isoformat, ensure_ascii=False)


def failure_line(label: str, task: Task) -> str:
    """Returns why a task didn't succeed, on one line."""
    error = task.error or Problem(code=task.status, detail="the task did not succeed")
    return f"{label}: {task.status}: {error.summary()} (task {task.id})"


def _clock(moment: datetime | None) -> str | None:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else None
