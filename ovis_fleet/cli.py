"""The command ``ovis-fleet``.

Exit status: 0 all went well, 1 a task failed or the gateway refused, 2 wrong use, 3 no gateway to talk to,
130 interrupted (``up`` is meant to be: 0).
"""

import json
import os
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from ovis_fleet.addresses import NoGatewayError, find_gateway, open_client
from ovis_fleet.dead_letters import dead_letters_app
from ovis_fleet.demo import Demo, default_picture
from ovis_fleet.display import models_table, print_lines, task_table, to_json
from ovis_fleet.errors import ClientError, UnreachableError
from ovis_fleet.keys import keys_app
from ovis_fleet.ports import PortInUseError
from ovis_fleet.readiness import PartError
from ovis_fleet.records import Task
from ovis_fleet.running import run_stack, stay_up
from ovis_fleet.servers import ServerNotFoundError
from ovis_fleet.sources import SourceError
from ovis_fleet.stack import StackConfig
from ovis_fleet.submitting import Order, submit_all
from ovis_fleet.workspace import WorkspaceInUseError

FAILED = 1
UNREACHABLE = 3
#: As shells count: 128 and the number of SIGINT.
INTERRUPTED = 130

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
app.add_typer(dead_letters_app, name="dead-letters")
app.add_typer(keys_app, name="keys")

ResultFormat = Literal["text", "markdown", "json"]

ModelOption = Annotated[str, typer.Option(help="The model that does the work.")]
DeviceOption = Annotated[str, typer.Option(help="cpu or cuda.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print tasks as lines of JSON.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As `submit` printed it.")]


def main() -> None:
    """Runs the command and words what goes wrong as one line."""
    errors = Console(stderr=True)
    try:
        app()
    except (UnreachableError, NoGatewayError) as exc:
        print_lines(errors, [f"ovis-fleet: {exc}"])
        sys.exit(UNREACHABLE)
    except (ClientError, PartError, PortInUseError, ServerNotFoundError, WorkspaceInUseError) as exc:
        print_lines(errors, [f"ovis-fleet: {exc}"])
        sys.exit(FAILED)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ovis-fleet {metadata.version('ovis-fleet')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Serve Ovis vision-language models as a fleet."""


@app.command()
def up(
    port: Annotated[int | None, typer.Option(help="The gateway's port; a free one by default.")] = None,
    model: ModelOption = "ovis2-reader",
    model_path: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="A checkpoint directory.")
    ] = None,
    device: DeviceOption = "cpu",
    data_dir: Annotated[
        Path | None, typer.Option(file_okay=False, help="Keep data and keys here; nothing is kept by default.")
    ] = None,
    redis_port: Annotated[int | None, typer.Option(help="Valkey's port; a free one by default.")] = None,
    s3_port: Annotated[int | None, typer.Option(help="The S3 port; a free one by default.")] = None,
    supervise: Annotated[bool, typer.Option(help="Start a part again when it dies.")] = True,
    start_timeout_s: Annotated[float, typer.Option(min=1, help="How long a part may take to start.")] = 180.0,
) -> None:
    """Start the whole fleet on this machine and keep it up until Ctrl-C."""
    config = StackConfig(
        model=model,
        device=device,
        model_path=model_path,
        gateway_port=port,
        redis_port=redis_port,
        s3_port=s3_port,
        data_dir=data_dir,
        supervise=supervise,
        start_timeout_s=start_timeout_s,
    )
    run_stack(config, Console(), stay_up)


@app.command()
def demo(
    file: Annotated[
        Path | None, typer.Argument(exists=True, dir_okay=False, help="A picture; the example by default.")
    ] = None,
    model: ModelOption = "ovis2-reader",
    device: DeviceOption = "cpu",
) -> None:
    """Start a fleet, send it a picture and a question, show what comes back, and stop it."""
    picture = file or default_picture()
    if picture is None:
        raise typer.BadParameter("give a picture: the example comes with a checkout only", param_hint="FILE")
    console = Console()
    use = Demo(picture, model, console).run
    outcome = run_stack(StackConfig(model=model, device=device), console, use)
    raise typer.Exit(INTERRUPTED if outcome is None else outcome)


@app.command()
def submit(
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE]...", help="Files, or http, https or s3 addresses.")
    ] = None,
    model: ModelOption = "ovis2-reader",
    operation: Annotated[str | None, typer.Option(help="ocr, caption, ask, ...; ocr unless it is a video.")] = None,
    kind: Annotated[str | None, typer.Option(help="image, document or video; by default as the name ends.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Instead of the operation's own.")] = None,
    deadline: Annotated[
        int | None, typer.Option(min=1, metavar="SECONDS", help="A task that hasn't ended by then expires.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the results.")] = True,
    timeout_s: Annotated[float, typer.Option(min=1, help="How long to wait for all of them.")] = 600.0,
    as_json: JsonOption = False,
) -> None:
    """Hand in one task for each file, or a text-only task when there is just a prompt.

    Results go to the standard output, all else to the standard error.
    """
    if not inputs and prompt is None:
        raise typer.BadParameter("give a file, an address, or --prompt")
    order = Order(tuple(inputs or ()), model, operation, prompt, deadline, kind)
    with open_client(os.environ) as client:
        try:
            succeeded = submit_all(client, order, timeout_s=timeout_s if wait else None, as_json=as_json)
        except SourceError as exc:
            raise typer.BadParameter(str(exc)) from exc
    raise typer.Exit(0 if succeeded else FAILED)


@app.command()
def status(
    task_id: IdArgument,
    as_json: JsonOption = False,
) -> None:
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


@app.command()
def result(
    task_id: IdArgument,
    wanted: Annotated[ResultFormat, typer.Option("--format", help="text, markdown, or json for all of it.")] = "text",
) -> None:
    """Print what a succeeded task gave, however long it is."""
    with open_client(os.environ) as client:
        text = client.result(task_id, wanted) if wanted != "json" else json.dumps(client.result(task_id))
    print_lines(Console(), [text])


@app.command()
def cancel(task_id: IdArgument, as_json: JsonOption = False) -> None:
    """Ask for a task's end. One that has ended stays as it is."""
    with open_client(os.environ) as client:
        _print_status(client.cancel(task_id), as_json=as_json)


@app.command()
def retry(task_id: IdArgument, as_json: JsonOption = False) -> None:
    """Run a failed task again."""
    with open_client(os.environ) as client:
        _print_status(client.retry(task_id), as_json=as_json)


@app.command()
def models() -> None:
    """Show the models and how busy they are."""
    with open_client(os.environ) as client:
        Console().print(models_table(client.models()), highlight=False)


@app.command()
def env() -> None:
    """Print the gateway's address and key as shell exports, for eval."""
    address = find_gateway(os.environ)
    typer.echo(f"export OVIS_URL={shlex.quote(address.url)}")
    typer.echo(f"export OVIS_API_KEY={shlex.quote(address.api_key)}")


def _print_status(task: Task, *, as_json: bool) -> None:
    print_lines(Console(), [to_json(task) if as_json else f"{task.id} {task.status}"])


if __name__ == "__main__":
    main()
