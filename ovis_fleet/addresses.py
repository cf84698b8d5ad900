"""Where the command finds a gateway: in the environment, or in the note that a running ``up`` leaves."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ovis_fleet.client import Client
from ovis_fleet.workspace import write_private


class NoGatewayError(Exception):
    """Neither the environment nor a local stack names a gateway."""


@dataclass(frozen=True)
class Address:
    """A gateway and the key to it.

    Attributes:
        url: the gateway's.
        api_key: the tenant's; not part of the repr.
    """

    url: str
    api_key: str = field(repr=False)


def state_path(environ: Mapping[str, str]) -> Path:
    """Returns where a running stack's address is noted: OVIS_FLEET_STATE, or the user's state directory."""
    if override := environ.get("OVIS_FLEET_STATE"):
        return Path(override)
    home = environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "ovis-fleet" / "local.json"


@contextlib.contextmanager
def announced(address: Address, path: Path) -> Iterator[None]:
    """Notes an address in a private file, and removes the note at the end if it is still this process's.

    Args:
        address: of the stack that this process runs.
        path: the file; written with mode 0600.
    """
    note = json.dumps({"url": address.url, "api_key": address.api_key, "pid": os.getpid()}) + "\n"
    write_private(path, note)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            if path.read_text(encoding="utf-8") == note:
                path.unlink()


def find_gateway(environ: Mapping[str, str]) -> Address:
    """Returns the gateway of OVIS_URL and OVIS_API_KEY, or that of the running local stack.

    Raises:
        NoGatewayError: when there is neither, or only half.
    """
    url, api_key = environ.get("OVIS_URL"), environ.get("OVIS_API_KEY")
    if url and api_key:
        return Address(url, api_key)
    if url or api_key:
        raise NoGatewayError("set both OVIS_URL and OVIS_API_KEY, or neither")
    try:
        note = json.loads(state_path(environ).read_text(encoding="utf-8"))
    except FileNotFoundError:
        note = None
    # The note of a stack that was killed stays behind.
    if note is None or not _is_alive(note["pid"]):
        raise NoGatewayError(
            "no local stack is running: start one with `ovis-fleet up`, or set OVIS_URL and OVIS_API_KEY"
        )
    return Address(note["url"], note["api_key"])


def open_client(environ: Mapping[str, str]) -> Client:
    """Returns a client of the gateway that ``find_gateway`` finds.

    Raises:
        NoGatewayError: when there is none.
    """
    address = find_gateway(environ)
    return Client(address.url, address.api_key)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
