"""``ovis-fleet demo``: pictures and a text-only task through a whole local stack."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from ovis_fleet.client import Client
from ovis_fleet.display import StackView, print_lines
from ovis_fleet.following import follow
from ovis_fleet.records import Task
from ovis_fleet.stack import LocalStack
from ovis_fleet.task_tables import failure_line, status_text, usage_line

#: For all tasks together; the bundled model needs seconds on a CPU.
_TIMEOUT_S = 120.0

_QUESTION = "Say hello."

#: The checkout's example pictures, in the order in which they are shown.
_EXAMPLES = ("receipt.png", "label.png", "invoice.png")


def default_pictures() -> list[Path]:
    """Returns the checkout's example pictures; none outside a checkout."""
    folder = Path(__file__).resolve().parent.parent / "examples"
    return [path for name in _EXAMPLES if (path := folder / name).is_file()]


class Demo:
    """Runs a task per picture and one without, and tells what comes of them."""

    def __init__(self, pictures: Sequence[Path], model: str, console: Console) -> None:
        """Does nothing yet.

        Args:
            pictures: what is read, a task each.
            model: what all tasks ask.
            console: where the story goes.
        """
        self._pictures = pictures
        self._model = model
        self._console = console
        self._started = 0.0

    def run(self, stack: LocalStack, _view: StackView) -> int:
        """Submits, follows, and prints the results.

        Returns:
            0 when all tasks succeeded, else 1.
        """
        self._started = time.monotonic()
        with Client(stack.url, stack.api_key) as client:
            tasks = {
                str(picture): client.submit(picture, model=self._model, operation="ocr") for picture in self._pictures
            }
            tasks["text only"] = client.submit(kind="text", model=self._model, prompt=_QUESTION)
            ended = follow(client, tasks, self._show_change, _TIMEOUT_S)
            failed = [failure_line(label, task) for label, task in ended.items() if task.status != "succeeded"]
            if failed:
                print_lines(self._console, ["", *failed])
                return 1
            for label, task in ended.items():
                self._show_result(label, task, _text(client, task))
        if self._model == "ovis2-reader":
            note = "ovis2-reader was trained to read print and nothing else: its text-only answer means nothing."
            print_lines(self._console, ["", note])
        return 0

    def _show_change(self, label: str, task: Task) -> None:
        elapsed_s = time.monotonic() - self._started
        line = Text.assemble((f"{elapsed_s:6.1f} s  ", "dim"), f"{label:<16} ", status_text(task.status))
        self._console.print(line)

    def _show_result(self, label: str, task: Task, text: str) -> None:
        self._console.print()
        self._console.print(Panel(Text(text or "(an empty answer)"), title=label, title_align="left", expand=False))
        location = task.result.location if task.result else ""
        print_lines(self._console, [f"in S3: {location}", f"tokens: {usage_line(task) or 'not known'}"])


def _text(client: Client, task: Task) -> str:
    """Returns what was read: from the record, or from the store when it is too large for that."""
    return (task.result.text if task.result else "") or client.result(task.id, "text")
