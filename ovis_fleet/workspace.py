"""The directory that a stack keeps its data, secrets and logs in."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

_PREFIX = "ovis-fleet-"

#: Held by the stack that lives on the directory.
_LOCK = "lock"

#: Names files elsewhere that a killed stack leaves behind, one a line.
_LEFTOVERS = "leftovers"


class WorkspaceInUseError(Exception):
    """Another stack runs on the data directory."""


class Workspace:
    """A private directory, held by one stack at a time.

    A lock on a file inside tells that the stack lives: the kernel drops it at any end of the process.

    Attributes:
        path: the directory; mode 0700 when it is made here.
        is_temporary: whether it is removed at ``close``.
    """

    def __init__(self, path: Path, descriptor: int, *, is_temporary: bool) -> None:
        self.path = path
        self.is_temporary = is_temporary
        self._descriptor: int | None = descriptor

    @classmethod
    def open(cls, data_dir: Path | None) -> "Workspace":
        """Takes the given directory, or a new temporary one, and clears up after stacks that were killed.

        Args:
            data_dir: where to keep data; None for a directory that ends with the stack.

        Raises:
            WorkspaceInUseError: when another stack runs on the directory.
        """
        if data_dir is None:
            remove_abandoned(Path(tempfile.gettempdir()))
            path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            # Locked before it has its name: to another stack, an unlocked one is abandoned.
            descriptor = _lock(path / "draft", os.O_CREAT)
            (path / "draft").rename(path / _LOCK)
        else:
            path = data_dir.expanduser().absolute()
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = _lock(path / _LOCK, os.O_CREAT)
        if descriptor is None:
            raise WorkspaceInUseError(f"{path} is in use by another stack")
        _remove_leftovers(path)
        return cls(path, descriptor, is_temporary=data_dir is None)

    def directory(self, name: str) -> Path:
        """Returns a directory inside, made when missing."""
        path = self.path / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def record_leftovers(self, paths: Iterable[Path]) -> None:
        """Notes files elsewhere that are to go with the stack, at ``close`` or after it was killed."""
        write_private(self.path / _LEFTOVERS, "".join(f"{path}\n" for path in paths))

    def close(self) -> None:
        """Lets go of the directory and removes it when it is temporary. Nothing may run in it any more.

        A second call does nothing.
        """
        if self._descriptor is None:
            return
        _remove_leftovers(self.path)
        if self.is_temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)
        self._descriptor = None


def write_private(path: Path, text: str) -> Path:
    """Replaces a file in one step by one of mode 0600, and returns its path."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    Path(draft).replace(path)
    return path


def remove_abandoned(parent: Path) -> None:
    """Removes this user's temporary directories whose stack no longer lives."""
    for path in parent.glob(f"{_PREFIX}*"):
        # Another user's, or one that another process removes at the same moment.
        with contextlib.suppress(OSError):
            if path.stat().st_uid != os.getuid():
                continue
            # Not made when missing: its stack has yet to lock it, or is removing the directory itself.
            descriptor = _lock(path / _LOCK)
            if descriptor is not None:
                _remove_leftovers(path)
                shutil.rmtree(path, ignore_errors=True)
                os.close(descriptor)


def _remove_leftovers(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        for line in (path / _LEFTOVERS).read_text(encoding="utf-8").splitlines():
            Path(line).unlink(missing_ok=True)


def _lock(path: Path, flags: int = 0) -> int | None:
    """Takes the lock and returns its descriptor; None when another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
