"""What the command shows of a stack, live on a terminal, plain elsewhere; and what it prints for scripts."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ovis_fleet.parts import PartState

_PART_STYLES = {
    PartState.WAITING: "dim",
    PartState.STARTING: "yellow",
    PartState.READY: "green",
    PartState.DIED: "bold red",
    PartState.STOPPING: "yellow",
    PartState.STOPPED: "dim",
}

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


def to_json(document: Any) -> str:
    """Returns records, alone or within lists and objects, as one line of JSON."""
    return json.dumps(document, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Is json's hook for what it doesn't know."""
    return value.isoformat() if isinstance(value, datetime) else dataclasses.asdict(value)
