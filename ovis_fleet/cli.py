"""The command ``ovis-fleet``. Its exit status is one of ``exit_codes``."""

import os
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, NoReturn

import stamina
import typer
from rich.console import Console

from ovis_fleet.addresses import NoGatewayError, find_gateway, open_client
from ovis_fleet.dead_letters import dead_letters_app
from ovis_fleet.demo import Demo, default_pictures
from ovis_fleet.display import print_lines, to_json
from ovis_fleet.errors import ClientError, TaskTimeoutError, UnreachableError
from ovis_fleet.exit_codes import ExitCode
from ovis_fleet.keys import keys_app
from ovis_fleet.ports import PortInUseError
from ovis_fleet.readiness import PartError
from ovis_fleet.running import run_stack, stay_up
from ovis_fleet.servers import ServerNotFoundError
from ovis_fleet.stack import StackConfig
from ovis_fleet.task_commands import JsonOption, ModelOption, task_app
from ovis_fleet.task_tables import models_table
from ovis_fleet.workspace import WorkspaceInUseError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(task_app)
app.add_typer(dead_letters_app, name="dead-letters")
app.add_typer(keys_app, name="keys")

DeviceOption = Annotated[str, typer.Option(help="cpu or cuda.")]


def main() -> None:
    """Runs the command and words what goes wrong as one line."""
    # Repetitions are the client's business; its log lines would get between the results.
    stamina.instrumentation.set_on_retry_hooks([])
    if not sys.stderr.isatty():
        app.rich_markup_mode = None
    try:
        app()
    except (UnreachableError, NoGatewayError) as exc:
        _leave(exc, ExitCode.UNREACHABLE)
    except TaskTimeoutError as exc:
        _leave(exc, ExitCode.TIMED_OUT)
    except ClientError as exc:
        _leave(exc, ExitCode.REFUSED)
    except (PartError, PortInUseError, ServerNotFoundError, WorkspaceInUseError) as exc:
        _leave(exc, ExitCode.FAILED)


def _leave(error: Exception, code: ExitCode) -> NoReturn:
    print_lines(Console(stderr=True), [f"ovis-fleet: {error}"])
    sys.exit(code)


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
    files: Annotated[
        list[Path] | None, typer.Argument(exists=True, dir_okay=False, help="Pictures; the examples by default.")
    ] = None,
    model: ModelOption = "ovis2-reader",
    device: DeviceOption = "cpu",
) -> None:
    """Start a fleet, send it pictures and a question, show what comes back, and stop it."""
    pictures = files or default_pictures()
    if not pictures:
        raise typer.BadParameter("give a picture: the examples come with a checkout only", param_hint="FILES")
    console = Console()
    use = Demo(pictures, model, console).run
    outcome = run_stack(StackConfig(model=model, device=device), console, use)
    raise typer.Exit(ExitCode.INTERRUPTED if outcome is None else outcome)


@app.command()
def models(as_json: JsonOption = False) -> None:
    """Show the models and how busy they are."""
    with open_client(os.environ) as client:
        found = client.models()
    if as_json:
        print_lines(Console(), [to_json({"data": found})])
    else:
        Console().print(models_table(found), highlight=False)


@app.command()
def usage(days: Annotated[int, typer.Option(min=1, max=92, help="How many, today included.")] = 30) -> None:
    """Print what your tasks used, day by day and in all, as JSON."""
    with open_client(os.environ) as client:
        print_lines(Console(), [to_json(client.usage(days))])


@app.command()
def limits() -> None:
    """Print your limits, and what of them is taken, as JSON."""
    with open_client(os.environ) as client:
        print_lines(Console(), [to_json(client.limits())])


@app.command()
def env() -> None:
    """Print the gateway's address and key as shell exports, for eval."""
    address = find_gateway(os.environ)
    typer.echo(f"export OVIS_URL={shlex.quote(address.url)}")
    typer.echo(f"export OVIS_API_KEY={shlex.quote(address.api_key)}")


if __name__ == "__main__":
    main()
