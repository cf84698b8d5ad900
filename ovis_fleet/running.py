"""``ovis-fleet up``: a local stack in the foreground, until Ctrl-C."""

import os
import signal
from collections.abc import Callable

from rich.console import Console

from ovis_fleet.addresses import Address, announced, state_path
from ovis_fleet.display import StackView
from ovis_fleet.interruption import interruptible
from ovis_fleet.stack import LocalStack, StackConfig


def run_stack(config: StackConfig, console: Console, use: Callable[[LocalStack, StackView], int]) -> int | None:
    """Starts a stack, shows its parts, lets the caller use it, and stops it whatever happens.

    Args:
        config: what to start.
        console: where the parts are shown.
        use: called once all parts are ready; its status is returned.

    Returns:
        the status of ``use``; None when a signal came first.

    Raises:
        PartError: when a part doesn't start.
    """
    view = StackView(console)
    stack = LocalStack(config, on_state=view.report)
    with interruptible(hurry=stack.kill_all) as interruption:
        try:
            with view.shown():
                try:
                    stack.start()
                    return use(stack, view)
                finally:
                    interruption.stop_begins()
                    stack.stop()
        except KeyboardInterrupt:
            return None


def stay_up(stack: LocalStack, view: StackView) -> int:
    """Tells where the stack is, for people and for the other commands, and waits for a signal."""
    with announced(Address(stack.url, stack.api_key), state_path(os.environ)):
        view.notice(
            [
                f"gateway   {stack.url}   (docs at {stack.url}/docs)",
                f"API key   {stack.api_key}",
                f"data      {stack.data_dir}" + ("" if stack.config.data_dir else " (removed at the end)"),
                "",
                "In another terminal:",
                "  ovis-fleet submit examples/receipt.png",
                '  eval "$(ovis-fleet env)"      # sets OVIS_URL and OVIS_API_KEY, for curl',
                "",
                "Ctrl-C stops everything.",
            ]
        )
        try:
            while True:
                signal.pause()
        finally:
            view.notice([])
