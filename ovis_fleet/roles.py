"""Gateway and workers as parts of the local stack: their command lines, settings and tenants."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ovis_fleet.parts import Part
from ovis_fleet.ports import HOST
from ovis_fleet.process import ManagedProcess
from ovis_fleet.readiness import answers_200

#: A worker may finish the sequences it runs before it is killed.
_DRAIN_GRACE_S = 30.0

#: The caller's, which no role should see.
_CLIENT_VARIABLES = ("OVIS_URL", "OVIS_API_KEY")


def tenants_document(api_key: str, bucket: str) -> str:
    """Returns the tenants file: one tenant, whose key is stored as a hash."""
    digest = hashlib.sha256(api_key.encode()).hexdigest()
    tenant = {"id": "default", "key_sha256": [digest], "s3_prefixes": [f"s3://{bucket}/uploads/"]}
    return json.dumps({"tenants": [tenant]}, indent=2) + "\n"


def gateway_part(port: int, env: Mapping[str, str], directory: Path, start_timeout_s: float) -> Part:
    """Describes the HTTP gateway.

    Args:
        port: where it listens, on the loopback interface.
        env: the settings that all roles share.
        directory: the stack's; the log goes to ``logs`` in it.
        start_timeout_s: how long the start may take.
    """
    argv = ["api_gateway", "--host", HOST, "--port", str(port)]
    return _part("gateway", argv, port, env, directory, start_timeout_s)


def worker_part(
    name: str,
    role_argv: list[str],
    metrics_port: int,
    env: Mapping[str, str],
    directory: Path,
    start_timeout_s: float,
) -> Part:
    """Describes a worker.

    Args:
        name: ``model``, ``io``, ``model-2``, ...
        role_argv: the role and its own options.
        metrics_port: where it serves ``/metrics`` and ``/readyz``.
        env: the settings that all roles share.
        directory: the stack's; the log goes to ``logs`` in it.
        start_timeout_s: how long the start may take, loading the model included.
    """
    argv = ["workers", *role_argv, "--metrics-port", str(metrics_port)]
    return _part(name, argv, metrics_port, env, directory, start_timeout_s)


def model_argv(model: str, device: str, model_path: Path | None) -> list[str]:
    """Returns the role and options of a model worker."""
    checkpoint = ["--checkpoint", str(model_path.expanduser().absolute())] if model_path else []
    return ["model", "--model", model, "--device", device, *checkpoint]


def _part(
    name: str, argv: list[str], port: int, env: Mapping[str, str], directory: Path, start_timeout_s: float
) -> Part:
    inherited = {key: value for key, value in os.environ.items() if key not in _CLIENT_VARIABLES}
    process = ManagedProcess(
        name,
        [sys.executable, "-m", *argv],
        env={**inherited, "PYTHONUNBUFFERED": "1", **env},
        log_path=directory / "logs" / f"{name}.log",
        # `python -m` looks in the working directory first: the user's may hold a module of the same name.
        cwd=directory,
        grace_s=_DRAIN_GRACE_S,
    )
    return Part(process, answers_200(f"http://{HOST}:{port}/readyz"), start_timeout_s)
