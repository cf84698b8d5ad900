"""Office files by LibreOffice: turned into PDF once, then read as one. Runs in media processes only.

LibreOffice runs inside the media process's limits (memory, CPU time, file size) and process group, so that it dies with
it. Its profile is new for each file: macros and links to other files are off, and its proxy is a port where nothing
listens, so that a document can't make it fetch anything. Whoever kills a media process removes what it had begun to
write, with ``remove_leftovers``.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from contract.errors import DamagedDocument, LimitExceeded, OfficeUnavailable

#: The compound file of old Office formats.
OLE_SIGNATURE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

#: What a media process with LibreOffice may write to one file: LibreOffice writes its profile and the PDF.
MAX_FILE_BYTES = 256 << 20

#: Seconds within which what was killed is gone.
_GONE_S = 1.0

_PROFILE = """<?xml version="1.0" encoding="UTF-8"?>
<oor:items xmlns:oor="http://openoffice.org/2001/registry">
<item oor:path="/org.openoffice.Office.Common/Security/Scripting"><prop oor:name="MacroSecurityLevel" oor:op="fuse">\
<value>3</value></prop><prop oor:name="DisableMacrosExecution" oor:op="fuse"><value>true</value></prop>\
<prop oor:name="BlockUntrustedRefererLinks" oor:op="fuse"><value>true</value></prop></item>
<item oor:path="/org.openoffice.Inet/Settings"><prop oor:name="ooInetProxyType" oor:op="fuse"><value>2</value></prop>\
<prop oor:name="ooInetHTTPProxyName" oor:op="fuse"><value>127.0.0.1</value></prop>\
<prop oor:name="ooInetHTTPProxyPort" oor:op="fuse"><value>9</value></prop>\
<prop oor:name="ooInetHTTPSProxyName" oor:op="fuse"><value>127.0.0.1</value></prop>\
<prop oor:name="ooInetHTTPSProxyPort" oor:op="fuse"><value>9</value></prop></item>
</oor:items>
"""


def to_pdf(data: bytes, *, command: str | None, timeout_s: float) -> bytes:
    """Turn an Office file into a PDF.

    Args:
        data: The file.
        command: The program ``soffice``; None where there is none.
        timeout_s: Seconds that it may take.

    Raises:
        OfficeUnavailable: There is no LibreOffice.
        DamagedDocument: LibreOffice made no PDF of it.
        LimitExceeded: It took too long.
    """
    if command is None:
        raise OfficeUnavailable("Office files need LibreOffice, which is not installed on this server")
    _allow_files()
    try:
        place = Path(tempfile.mkdtemp(prefix=_prefix(os.getpid())))
        try:
            return _convert(place, data, command, timeout_s)
        finally:
            _remove(place)
    finally:
        _forbid_files()


def remove_leftovers(pid: int) -> None:
    """Remove the files of a media process that was killed; anything else stays. Any thread of the worker."""
    for place in Path(tempfile.gettempdir()).glob(f"{_prefix(pid)}*"):
        _remove(place)


def _convert(folder: Path, data: bytes, command: str, timeout_s: float) -> bytes:
    # LibreOffice goes by content; the name only has to have no format's ending.
    source = folder / "input"
    source.write_bytes(data)
    settings = _profile(folder) / "user" / "registrymodifications.xcu"
    settings.parent.mkdir(parents=True)
    settings.write_text(_PROFILE)
    arguments = [
        "--headless",
        "--norestore",
        "--nolockcheck",
        "--convert-to",
        "pdf",
        "--outdir",
        str(folder),
        str(source),
    ]
    try:
        process = subprocess.Popen(  # noqa: S603 - the operator's program, on a file of a name of ours
            [command, f"-env:UserInstallation={_profile(folder).as_uri()}", *arguments],
            env={"PATH": os.defpath, "HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError as exc:
        raise OfficeUnavailable("LibreOffice can't be started on this server") from exc
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired as exc:
        raise LimitExceeded(f"turning the Office file into pages took more than {timeout_s:g} seconds") from exc
    finally:
        _end_children()
        process.wait()
    try:
        return (folder / "input.pdf").read_bytes()
    except OSError as exc:
        raise DamagedDocument("LibreOffice can't read the Office file") from exc


def _end_children() -> None:
    """Kill what this media process has started: ``soffice`` is a script that starts two programs in turn."""
    while children := psutil.Process().children(recursive=True):
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=_GONE_S)


def _prefix(pid: int) -> str:
    return f"ovis-office-{pid}-"


def _profile(folder: Path) -> Path:
    return folder / "profile"


def _remove(folder: Path) -> None:
    """Remove a conversion's folder, and the socket that LibreOffice, when it is killed, leaves in /tmp.

    The socket's name holds a digest of the profile's address (LibreOffice's ``RequestHandler::Enable``, each byte
    printed without leading zeros).
    """
    digest = hashlib.md5(_profile(folder).as_uri().encode("utf-16-le"), usedforsecurity=False).digest()
    name = "".join(f"{byte:x}" for byte in digest)
    Path(f"/tmp/OSL_PIPE_{os.getuid()}_SingleOfficeIPC_{name}").unlink(missing_ok=True)  # noqa: S108 - it has no choice
    shutil.rmtree(folder, ignore_errors=True)


def _allow_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def _forbid_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
