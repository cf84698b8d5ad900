"""The local stack: every part of the fleet as a real process on this machine, on the loopback interface."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from ovis_fleet import roles, servers
from ovis_fleet.credentials import S3Credentials, StackSecrets
from ovis_fleet.parts import Part, PartGroup, StateListener
from ovis_fleet.ports import HOST, PortPicker
from ovis_fleet.process import ManagedProcess
from ovis_fleet.workspace import Workspace, write_private

#: All parts, in the order of their start.
ALL_PARTS = ("valkey", "s3", "gateway", "model", "io")

#: What the others need, started before them.
_SERVERS = ("valkey", "s3")

_BUCKET = "ovis"


@dataclass(frozen=True)
class StackConfig:
    """What to start, and where.

    Attributes:
        model: the model that the model worker serves.
        device: ``cpu`` or ``cuda``.
        model_path: a checkpoint directory; None for the model's own.
        gateway_port: None for a free one, as for the other two.
        redis_port: where Valkey listens.
        s3_port: where SeaweedFS serves S3.
        data_dir: where data and keys are kept; None for a temporary directory that ends with the stack.
        parts: which parts to start, of ``ALL_PARTS``.
        extra_env: settings for gateway and workers, over those of the stack.
        supervise: whether a part that dies is started again.
        start_timeout_s: how long a role may take to be ready, loading the model included.
    """

    model: str = "ovis2-reader"
    device: str = "cpu"
    model_path: Path | None = None
    gateway_port: int | None = None
    redis_port: int | None = None
    s3_port: int | None = None
    data_dir: Path | None = None
    parts: tuple[str, ...] = ALL_PARTS
    extra_env: Mapping[str, str] = field(default_factory=dict)
    supervise: bool = False
    start_timeout_s: float = 180.0

    def __post_init__(self) -> None:
        """Refuses a part that doesn't exist.

        Raises:
            ValueError: for a name outside ``ALL_PARTS``.
        """
        if unknown := set(self.parts) - set(ALL_PARTS):
            raise ValueError(f"no such part: {', '.join(sorted(unknown))}")


class LocalStack:
    """The parts of one local stack; a context manager that starts and stops them.

    The parts die with this process, however it ends. Addresses and secrets are known from the construction
    on. Any thread may call any method.

    Attributes:
        config: what it was made from.
        url: the gateway's address.
        redis_url: Valkey's address, database included.
        s3_endpoint: the address that S3 is served at.
        bucket: the bucket's name.
        data_dir: the directory that holds data, settings and logs.
        api_key: the default tenant's key.
        s3_credentials: the only ones that S3 accepts.
        env: the settings that gateway and workers get, as environment variables.
    """

    def __init__(self, config: StackConfig | None = None, *, on_state: StateListener | None = None) -> None:
        """Takes the directory and the ports; starts nothing yet. ``stop`` gives them back.

        Args:
            config: what to start.
            on_state: told of each part's changes; called from any thread, must not block.

        Raises:
            PortInUseError: when a port that was asked for is taken.
            WorkspaceInUseError: when another stack runs on the data directory.
            ServerNotFoundError: when Valkey or SeaweedFS isn't installed.
        """
        self.config = config or StackConfig()
        self._ports = PortPicker()
        self._gateway_port = self._ports.claim(self.config.gateway_port)
        self._redis_port = self._ports.claim(self.config.redis_port)
        self._s3_port = self._ports.claim(self.config.s3_port)
        self.url = f"http://{HOST}:{self._gateway_port}"
        self.redis_url = f"redis://{HOST}:{self._redis_port}/0"
        self.s3_endpoint = f"http://{HOST}:{self._s3_port}"
        self.bucket = _BUCKET
        self._group = PartGroup(on_state or (lambda _name, _state: None))
        self._workspace = Workspace.open(self.config.data_dir)
        self.data_dir = self._workspace.path
        with contextlib.ExitStack() as undo:
            undo.callback(self._workspace.close)
            secrets = StackSecrets.kept_in(self.data_dir / "secrets.json")
            self.api_key = secrets.api_key
            self.s3_credentials: S3Credentials = secrets.s3
            self.env = self._settings(secrets.webhook_key)
            wanted = [name for name in ALL_PARTS if name in self.config.parts]
            self._group.add([self._server(name) for name in wanted if name in _SERVERS])
            self._group.add([self._role(name) for name in wanted if name not in _SERVERS])
            self._workspace.record_leftovers(path for part in self._group.parts.values() for path in part.leftovers)
            undo.pop_all()

    @property
    def parts(self) -> dict[str, ManagedProcess]:
        """The processes by name: ``valkey``, ``s3``, ``gateway``, ``model``, ``io`` and added workers."""
        return {name: part.process for name, part in self._group.parts.items()}

    def start(self) -> None:
        """Starts all parts, servers first, and waits until each is ready.

        Raises:
            PartError: when a part ends or isn't ready in time; what was started is stopped.
        """
        try:
            self._group.start_all()
        except BaseException:
            self.stop()
            raise
        if self.config.supervise:
            self._group.watch()

    def stop(self) -> None:
        """Stops all parts in reverse, each within its grace, and removes a temporary directory."""
        self._group.stop_all()
        self._workspace.close()

    def kill_all(self) -> None:
        """Kills all parts at once; for a caller who won't wait for a ``stop`` under way. Safe in a signal handler."""
        self._group.kill_all()

    def start_part(self, name: str) -> None:
        """Starts a part that was stopped or killed, and waits until it is ready.

        Raises:
            PartError: when it ends or isn't ready in time.
        """
        self._group.start(name)

    def stop_part(self, name: str) -> None:
        """Stops one part within its grace; it isn't supervised until it is started again."""
        self._group.stop(name)

    def restart_part(self, name: str) -> None:
        """Stops a part within its grace, starts it again and waits until it is ready.

        Raises:
            PartError: when it ends or isn't ready in time.
        """
        self._group.stop(name)
        self._group.start(name)

    def kill_part(self, name: str) -> None:
        """Ends a part as ``kill -9`` does. It stays down until ``start_part``, or until the supervision's turn."""
        self._group.parts[name].process.kill()

    def add_worker(self, role: Literal["model", "io"]) -> str:
        """Starts one more worker like the first and waits until it is ready.

        Returns:
            its name among the parts: ``model-2``, ``model-3``, ...

        Raises:
            PartError: when it ends or isn't ready in time.
        """
        number = 2 + sum(name.startswith(f"{role}-") for name in self._group.parts)
        name = f"{role}-{number}"
        self._group.add([self._worker(name, role)])
        self._group.start(name)
        return name

    def __enter__(self) -> Self:
        """Starts the stack."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the stack."""
        self.stop()

    def _settings(self, webhook_key: str) -> dict[str, str]:
        tenants_path = self.data_dir / "tenants.json"
        write_private(tenants_path, roles.tenants_document(self.api_key, self.bucket))
        return {
            "OVIS_REDIS_URL": self.redis_url,
            "OVIS_S3_ENDPOINT_URL": self.s3_endpoint,
            "OVIS_S3_BUCKET": self.bucket,
            "OVIS_S3_ACCESS_KEY_ID": self.s3_credentials.access_key_id,
            "OVIS_S3_SECRET_ACCESS_KEY": self.s3_credentials.secret_access_key,
            "OVIS_TENANTS_FILE": str(tenants_path),
            "OVIS_WEBHOOK_KEYS": webhook_key,
            "OVIS_PUBLIC_URL": self.url,
            **self.config.extra_env,
        }

    def _server(self, name: str) -> Part:
        directory = self._workspace.directory(name)
        log_path = self.data_dir / "logs" / f"{name}.log"
        if name == "valkey":
            return servers.valkey_part(self._redis_port, directory, log_path)
        return servers.s3_part(self._s3_port, self.bucket, self.s3_credentials, self._ports, directory, log_path)

    def _role(self, name: str) -> Part:
        if name == "gateway":
            return roles.gateway_part(self._gateway_port, self.env, self.data_dir, self.config.start_timeout_s)
        return self._worker(name, "model" if name == "model" else "io")

    def _worker(self, name: str, role: Literal["model", "io"]) -> Part:
        config = self.config
        argv = roles.model_argv(config.model, config.device, config.model_path) if role == "model" else ["io"]
        return roles.worker_part(name, argv, self._ports.pick(), self.env, self.data_dir, config.start_timeout_s)
