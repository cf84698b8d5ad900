"""The commands that hand in, show, follow and change tasks."""

import json
import os
from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from ovis_fleet.addresses import open_client
from ovis_fleet.display import print_lines, to_json
from ovis_fleet.exit_codes import ExitCode
from ovis_fleet.records import Task
from ovis_fleet.sources import SourceError
from ovis_fleet.submitting import Order, submit_all
from ovis_fleet.task_tables import estimate_table, task_table, tasks_table
from ovis_fleet.watching import watch_task

task_app = typer.Typer()

TextFormat = Literal["text", "markdown", "vtt"]

InputsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[FILE]...", help="Files, or http, https or s3 addresses.")
]
ModelOption = Annotated[str, typer.Option(help="The model that does the work.")]
OperationOption = Annotated[str | None, typer.Option(help="ocr, caption, ask, ...; the gateway's choice by default.")]
KindOption = Annotated[str | None, typer.Option(help="image, document or video; by default as the name ends.")]
PromptOption = Annotated[str | None, typer.Option(help="Instead of the operation's own.")]
OptionOption = Annotated[
    list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="As in docs/api.md; the value may be JSON.")
]
MetadataOption = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Your own; lists filter by it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, for scripts.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As `submit` printed it.")]


@task_app.command()
def submit(
    inputs: InputsArgument = None,
    model: ModelOption = "ovis2-reader",
    operation: OperationOption = None,
    kind: KindOption = None,
    prompt: PromptOption = None,
    option: OptionOption = None,
    metadata: MetadataOption = None,
    priority: Annotated[str | None, typer.Option(help="high, normal or low, among your own tasks.")] = None,
    deadline: Annotated[
        int | None, typer.Option(min=1, metavar="SECONDS", help="A task that hasn't ended by then expires.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the results.")] = True,
    timeout_s: Annotated[float, typer.Option(min=1, help="How long to wait for all of them.")] = 600.0,
    form: Annotated[TextFormat, typer.Option("--format", help="How results are printed.")] = "text",
    as_json: JsonOption = False,
) -> None:
    """Hand in one task for each file, or a text-only task when there is just a prompt.

    Results go to the standard output, all else to the standard error.
    """
    order = _order(inputs, model, operation, kind, prompt, option, metadata)
    order = order.with_fields(priority=priority, deadline_s=deadline)
    with open_client(os.environ) as client:
        try:
            succeeded = submit_all(client, order, timeout_s=timeout_s if wait else None, as_json=as_json, form=form)
        except SourceError as exc:
            raise typer.BadParameter(str(exc)) from exc
    raise typer.Exit(ExitCode.OK if succeeded else ExitCode.FAILED)


@task_app.command()
def estimate(
    inputs: InputsArgument = None,
    model: ModelOption = "ovis2-reader",
    operation: OperationOption = None,
    kind: KindOption = None,
    prompt: PromptOption = None,
    option: OptionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what tasks would take, one for each file; nothing is run."""
    order = _order(inputs, model, operation, kind, prompt, option, None)
    with open_client(os.environ) as client:
        try:
            estimates = order.estimate(client)
        except SourceError as exc:
            raise typer.BadParameter(str(exc)) from exc
    if as_json:
        print_lines(Console(), [to_json({"data": list(estimates.values())})])
    else:
        Console().print(estimate_table(estimates), highlight=False)


@task_app.command()
def status(task_id: IdArgument, as_json: JsonOption = False) -> None:
    """Show a task, and what was read once it has succeeded."""
    with open_client(os.environ) as client:
        task = client.get(task_id)
    console = Console()
    if as_json:
        print_lines(console, [to_json(task)])
        return
    console.print(task_table(task), highlight=False)
    if task.result and task.result.text:
        print_lines(console, ["", task.result.text])


@task_app.command("list")
@task_app.command("tasks", help="The same as `list`.")
def list_tasks(
    wanted: Annotated[str | None, typer.Option("--status", help="queued, running, succeeded, failed, ...")] = None,
    model: Annotated[str | None, typer.Option(help="Tasks of this model.")] = None,
    kind: Annotated[str | None, typer.Option(help="image, document, video or text.")] = None,
    metadata: MetadataOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many; the newest come first.")] = 20,
    show_all: Annotated[bool, typer.Option("--all", help="All that there are.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show tasks, the newest first."""
    with open_client(os.environ) as client:
        tasks = client.list_all(status=wanted, model=model, kind=kind, metadata=_pairs(metadata, "--metadata"))
        found = list(islice(tasks, None if show_all else limit + 1))
    shown = found if show_all else found[:limit]
    if as_json:
        print_lines(Console(), [to_json({"data": shown, "has_more": len(found) > len(shown)})])
        return
    if shown:
        Console().print(tasks_table(shown), highlight=False)
    if len(shown) < len(found):
        print_lines(Console(stderr=True), [f"There are more than {limit}: see --limit and --all."])


@task_app.command()
def watch(
    task_id: IdArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
) -> None:
    """Follow a task's events until its run has ended; exits with 1 unless it succeeded."""
    with open_client(os.environ) as client:
        succeeded = watch_task(client, task_id, as_json=as_json)
    raise typer.Exit(ExitCode.OK if succeeded else ExitCode.FAILED)


@task_app.command()
def result(
    task_id: IdArgument,
    form: Annotated[
        Literal["text", "markdown", "vtt", "json"], typer.Option("--format", help="json is all of it.")
    ] = "text",
    part: Annotated[int | None, typer.Option(min=0, help="One page or clip alone, from 0.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Print what a succeeded task gave, however long it is."""
    with open_client(os.environ) as client:
        if as_json or form == "json":
            text = json.dumps(client.result(task_id, part=part), ensure_ascii=False)
        else:
            text = client.result(task_id, form, part=part)
    print_lines(Console(), [text])


@task_app.command()
def cancel(task_id: IdArgument, as_json: JsonOption = False) -> None:
    """Ask for a task's end. One that has ended stays as it is."""
    with open_client(os.environ) as client:
        _print_status(client.cancel(task_id), as_json=as_json)


@task_app.command()
def retry(task_id: IdArgument, as_json: JsonOption = False) -> None:
    """Run again what failed: a task, or pages of it."""
    with open_client(os.environ) as client:
        _print_status(client.retry(task_id), as_json=as_json)


@task_app.command()
def delete(task_id: IdArgument, as_json: JsonOption = False) -> None:
    """Purge an ended task with its inputs and results."""
    with open_client(os.environ) as client:
        client.delete(task_id)
    print_lines(Console(), [to_json({"id": task_id, "deleted": True}) if as_json else f"{task_id} deleted"])


def _order(
    inputs: list[str] | None,
    model: str,
    operation: str | None,
    kind: str | None,
    prompt: str | None,
    option: Sequence[str] | None,
    metadata: Sequence[str] | None,
) -> Order:
    if not inputs and prompt is None:
        raise typer.BadParameter("give a file, an address, or --prompt")
    options = {name: _value(text) for name, text in (_pairs(option, "--option") or {}).items()}
    return Order(tuple(inputs or ()), model, operation, prompt, kind).with_fields(
        options=options or None, metadata=_pairs(metadata, "--metadata")
    )


def _pairs(given: Sequence[str] | None, name: str) -> dict[str, str] | None:
    """Reads KEY=VALUE; None for none."""
    if any("=" not in item for item in given or ()):
        raise typer.BadParameter("give it as KEY=VALUE", param_hint=name)
    return {key: value for key, _, value in (item.partition("=") for item in given or ())} or None


def _value(text: str) -> Any:
    """Reads a value as JSON where it is JSON, else as the words that it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _print_status(task: Task, *, as_json: bool) -> None:
    print_lines(Console(), [to_json(task) if as_json else f"{task.id} {task.status}"])
