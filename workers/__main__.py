"""``python -m workers model --model NAME`` and ``python -m workers io``."""

from __future__ import annotations

import sys
from typing import Annotated
from uuid import uuid4

import typer
from pydantic import ValidationError

from contract.catalogue import CATALOGUE
from contract.logs import configure_logs
from contract.settings import explain
from ovis_engine.without_compiler import leave_out_compiler
from workers.settings import WorkerSettings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)

Host = Annotated[str, typer.Option(help="Address of /metrics, /livez and /readyz.")]
Port = Annotated[int, typer.Option(help="Port of /metrics, /livez and /readyz; 0 lets the system choose.")]


def _start(role: str, worker: str) -> WorkerSettings:
    """Read the settings and open the logs; a bad setting ends the process with its name."""
    try:
        settings = WorkerSettings()
    except ValidationError as exc:
        for name, message in explain(exc):
            typer.echo(f"OVIS_{name.upper()}: {message}", err=True)
        raise typer.Exit(2) from None
    configure_logs(role, settings.log_level, worker=worker)
    return settings


def _name(what: str) -> str:
    """A worker's name, new at every start."""
    return f"{what}-{uuid4().hex[:8]}"


@app.command()
def model(
    model: Annotated[str, typer.Option(help="Name in the catalogue; also the queue that is served.")],
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    gpus: Annotated[str, typer.Option(help="Comma-separated: one pinned process each, restarted if it dies.")] = "",
    checkpoint: Annotated[
        str | None, typer.Option(help="Directory, s3://bucket/prefix or hub id; default: bundled, or the hub cache.")
    ] = None,
    metrics_host: Host = "0.0.0.0",  # noqa: S104 - scraped from outside the pod
    metrics_port: Port = 9101,
) -> None:
    """Hold one model and run its parts."""
    if model not in CATALOGUE:
        raise typer.BadParameter(f"{model!r} is none of {', '.join(CATALOGUE)}", param_hint="--model")
    if device not in ("cpu", "cuda"):
        raise typer.BadParameter(f"{device!r} is neither cpu nor cuda", param_hint="--device")
    worker = _name("supervisor" if gpus else model)
    settings = _start("model", worker)
    if gpus:
        from workers.supervisor import supervise

        argv = ["model", "--model", model, "--device", device, "--metrics-host", metrics_host]
        argv += ["--checkpoint", checkpoint] if checkpoint else []
        supervise(gpus.split(","), argv, metrics_port=metrics_port)
        return
    # Imported late: the supervisor and --help need no torch.
    if device == "cpu":
        leave_out_compiler()
    from workers.model_role import ModelRole, run_model_role

    run_model_role(ModelRole(model, device, checkpoint, worker, metrics_host, metrics_port), settings)


@app.command()
def io(
    metrics_host: Host = "0.0.0.0",  # noqa: S104 - scraped from outside the pod
    metrics_port: Port = 9102,
) -> None:
    """Reap expired leases, top up wake-ups, purge."""
    from workers.io_role import run_io_role

    worker = _name("io")
    run_io_role(worker, _start("io", worker), metrics_host=metrics_host, metrics_port=metrics_port)


if __name__ == "__main__":
    sys.exit(app())
