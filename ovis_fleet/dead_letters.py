"""``ovis-fleet dead-letters``: tasks whose every attempt ended without a result."""

import os
from collections.abc import Callable, Iterable
from http import HTTPStatus
from itertools import islice
from typing import Annotated

import typer
from rich.console import Console

from ovis_fleet.addresses import open_client
from ovis_fleet.client import Client
from ovis_fleet.display import print_lines, to_json
from ovis_fleet.errors import ApiError
from ovis_fleet.exit_codes import ExitCode
from ovis_fleet.task_tables import dead_letters_table, history_table, task_table

#: What the gateway says of a dead letter that another caller has just replayed, discarded or purged.
_HANDLED = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE})

dead_letters_app = typer.Typer(
    no_args_is_help=True, help="List, inspect, replay and discard tasks whose every attempt ended without a result."
)

IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="As `list` shows them.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, for scripts.")]
AllOption = Annotated[bool, typer.Option("--all", help="All that there are.")]


@dead_letters_app.command("list")
def list_letters(
    limit: Annotated[int, typer.Option(min=1, help="How many; the last to die come first.")] = 20,
    show_all: AllOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show dead letters."""
    console = Console()
    with open_client(os.environ) as client:
        letters = list(islice(client.all_dead_letters(), None if show_all else limit + 1))
    shown = letters if show_all else letters[:limit]
    if as_json:
        print_lines(console, [to_json({"data": shown, "has_more": len(letters) > len(shown)})])
        return
    if shown:
        console.print(dead_letters_table(shown), highlight=False)
    if len(shown) < len(letters):
        print_lines(Console(stderr=True), [f"There are more than {limit}: see --limit and --all."])


@dead_letters_app.command()
def show(
    task_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")],
    as_json: JsonOption = False,
) -> None:
    """Show a dead letter with the history of its attempts."""
    with open_client(os.environ) as client:
        letter = client.dead_letter(task_id)
    console = Console()
    if as_json:
        print_lines(console, [to_json(letter)])
        return
    console.print(task_table(letter.task), highlight=False)
    console.print()
    console.print(history_table(letter), highlight=False)


@dead_letters_app.command()
def replay(ids: IdsArgument = None, all_of_them: AllOption = False, as_json: JsonOption = False) -> None:
    """Run dead letters again, with all their attempts before them."""
    with open_client(os.environ) as client:
        _handle(_chosen(client, ids, all_of_them), lambda task_id: client.replay(task_id).status, as_json=as_json)


@dead_letters_app.command()
def discard(ids: IdsArgument = None, all_of_them: AllOption = False, as_json: JsonOption = False) -> None:
    """Take tasks off the dead letters. They stay failed, and can be retried, until they are purged."""

    def drop(task_id: str) -> str:
        client.discard(task_id)
        return "discarded"

    with open_client(os.environ) as client:
        _handle(_chosen(client, ids, all_of_them), drop, as_json=as_json)


def _chosen(client: Client, ids: list[str] | None, all_of_them: bool) -> list[str]:
    """Returns the ids that were named, or those of all dead letters as they are now.

    Raises:
        typer.BadParameter: for neither or both.
    """
    if bool(ids) == all_of_them:
        raise typer.BadParameter("give ids or --all")
    return ids or [letter.task.id for letter in client.all_dead_letters()]


def _handle(ids: Iterable[str], act: Callable[[str], str], *, as_json: bool) -> None:
    """Acts on each and prints what became of it; exits with 4 when one was no dead letter (any more)."""
    output, notes = Console(), Console(stderr=True)
    became: list[dict[str, str]] = []
    refused = False
    for task_id in ids:
        try:
            became.append({"id": task_id, "became": act(task_id)})
        except ApiError as exc:
            if exc.status not in _HANDLED:
                raise
            refused = True
            print_lines(notes, [f"{task_id}: {exc}"])
            continue
        if not as_json:
            print_lines(output, [f"{task_id} {became[-1]['became']}"])
    if as_json:
        print_lines(output, [to_json({"data": became})])
    raise typer.Exit(ExitCode.REFUSED if refused else ExitCode.OK)
