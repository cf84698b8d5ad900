"""Valkey and SeaweedFS run as real processes, keep to this machine, and leave nothing behind."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from redis import Redis

from ovis_fleet.ports import PortInUseError
from ovis_fleet.stack import LocalStack, StackConfig
from ovis_fleet.workspace import WorkspaceInUseError

Wait = Callable[..., bool]

SERVERS = ("valkey", "s3")


def s3_client(stack: LocalStack, secret: str | None = None) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=stack.s3_endpoint,
        aws_access_key_id=stack.s3_credentials.access_key_id,
        aws_secret_access_key=secret or stack.s3_credentials.secret_access_key,
        region_name="us-east-1",
        config=Config(signature_version="s3v4", retries={"max_attempts": 1}),
    )


def sockets_elsewhere(data_dir: Path) -> list[Path]:
    """The sockets that SeaweedFS makes outside its directory."""
    return [Path(line) for line in (data_dir / "leftovers").read_text().splitlines()]


@pytest.fixture
def redis(servers: LocalStack) -> Iterator["Redis[str]"]:
    with Redis.from_url(servers.redis_url, decode_responses=True) as client:
        yield client


def test_an_object_can_be_stored_and_read_back_as_soon_as_the_stack_is_ready(servers: LocalStack) -> None:
    s3 = s3_client(servers)
    s3.put_object(Bucket=servers.bucket, Key="results/a", Body=b"x" * 300_000)

    assert s3.get_object(Bucket=servers.bucket, Key="results/a")["Body"].read() == b"x" * 300_000
    s3.close()


def test_a_wrong_secret_is_refused(servers: LocalStack) -> None:
    s3 = s3_client(servers, secret="wrong")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        s3.put_object(Bucket=servers.bucket, Key="results/b", Body=b"x")
    s3.close()


def test_secrets_are_in_no_repr_and_no_log(servers: LocalStack) -> None:
    secret = servers.s3_credentials.secret_access_key
    logs = "".join(path.read_text(errors="replace") for path in (servers.data_dir / "logs").iterdir())

    assert secret not in repr(servers.s3_credentials)
    assert secret not in logs
    for name in ("secrets.json", "tenants.json"):
        assert (servers.data_dir / name).stat().st_mode & 0o777 == 0o600
    assert servers.api_key not in (servers.data_dir / "tenants.json").read_text()


def test_valkey_evicts_nothing_and_writes_an_append_only_file(redis: "Redis[str]") -> None:
    config = redis.config_get("*")
    assert config["maxmemory-policy"] == "noeviction"
    assert (config["appendonly"], config["appendfsync"], config["save"]) == ("yes", "everysec", "")


def test_no_server_listens_beyond_this_machine(servers: LocalStack) -> None:
    for name, process in servers.parts.items():
        listening = [c for c in psutil.Process(process.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert listening, name
        assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}


def test_killed_servers_are_started_again_with_all_that_they_knew(
    servers: LocalStack, redis: "Redis[str]", eventually: Wait
) -> None:
    s3 = s3_client(servers)
    redis.set("kept", "yes")
    s3.put_object(Bucket=servers.bucket, Key="kept", Body=b"yes")
    before = {name: process.pid for name, process in servers.parts.items()}

    for name in SERVERS:
        servers.kill_part(name)

    assert eventually(lambda: all(p.is_running and p.pid != before[name] for name, p in servers.parts.items()))
    for name in SERVERS:
        servers.start_part(name)  # returns when it is ready
    assert redis.get("kept") == "yes"
    assert s3.get_object(Bucket=servers.bucket, Key="kept")["Body"].read() == b"yes"
    s3.close()


def test_a_stopped_part_is_left_alone_by_the_supervision(servers: LocalStack, eventually: Wait) -> None:
    servers.stop_part("valkey")
    assert not eventually(lambda: servers.parts["valkey"].is_running, timeout_s=1.5)

    servers.start_part("valkey")
    assert servers.parts["valkey"].is_running


def test_two_stacks_run_side_by_side(servers: LocalStack) -> None:
    with LocalStack(StackConfig(parts=SERVERS)) as other:
        assert all(process.is_running for process in (*servers.parts.values(), *other.parts.values()))
        assert other.redis_url != servers.redis_url
        assert other.s3_credentials != servers.s3_credentials


def test_a_stop_leaves_no_process_no_directory_and_no_socket(temp_root: Path, gone: Callable[[int], bool]) -> None:
    with LocalStack(StackConfig(parts=SERVERS)) as stack:
        pids = [process.pid for process in stack.parts.values()]
        assert list(temp_root.iterdir()) == [stack.data_dir]
        sockets = sockets_elsewhere(stack.data_dir)
        assert all(path.exists() for path in sockets)
        stack.kill_part("s3")

    assert all(gone(pid) for pid in pids if pid)
    assert list(temp_root.iterdir()) == []
    assert not any(path.exists() for path in sockets)


def test_a_data_directory_keeps_keys_and_objects_for_the_next_stack(tmp_path: Path) -> None:
    config = StackConfig(parts=SERVERS, data_dir=tmp_path / "data")
    with LocalStack(config) as first:
        s3 = s3_client(first)
        s3.put_object(Bucket=first.bucket, Key="kept", Body=b"yes")
        s3.close()
        with Redis.from_url(first.redis_url) as redis:
            redis.set("kept", "yes")
        with pytest.raises(WorkspaceInUseError, match="in use by another stack"):
            LocalStack(config)

    with LocalStack(config) as second:
        assert second.api_key == first.api_key
        s3 = s3_client(second)
        assert s3.get_object(Bucket=second.bucket, Key="kept")["Body"].read() == b"yes"
        s3.close()
        with Redis.from_url(second.redis_url) as redis:
            assert redis.get("kept") == b"yes"


def test_a_port_that_is_taken_is_refused_before_anything_starts(temp_root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"port {port} is already in use"):
            LocalStack(StackConfig(parts=SERVERS, redis_port=port))
    assert list(temp_root.iterdir()) == []


def test_a_part_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no such part: queue"):
        StackConfig(parts=("valkey", "queue"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux kills children with their parent")
def test_a_killed_stack_leaves_no_process_and_the_next_one_clears_its_directory(
    temp_root: Path, eventually: Wait, gone: Callable[[int], bool]
) -> None:
    script = (
        "import signal\n"
        "from ovis_fleet.stack import LocalStack, StackConfig\n"
        "stack = LocalStack(StackConfig(parts=('valkey', 's3'), supervise=True))\n"
        "stack.start()\n"
        "print(*(process.pid for process in stack.parts.values()), flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)
    assert len(pids) == len(SERVERS)

    assert eventually(lambda: all(gone(pid) for pid in pids))
    (directory,) = temp_root.iterdir()
    sockets = sockets_elsewhere(directory)
    LocalStack(StackConfig(parts=())).stop()
    assert list(temp_root.iterdir()) == []
    assert not any(path.exists() for path in sockets)
