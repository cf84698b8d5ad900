"""Where a checkpoint is on this machine: a directory, inside the package, or in the local hub cache."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from ovis_engine.bundled import bundled_model_path
from ovis_engine.errors import CheckpointNotFoundError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def locate_checkpoint(source: str | Path, *, hub_cache: Path | None = None) -> Path:
    """Finds a checkpoint's directory. Nothing is downloaded.

    Args:
        source: A directory, the name of a bundled model, or a hub id such as ``AIDC-AI/Ovis2-4B``, in this order.
        hub_cache: The hub's cache; None means where huggingface_hub keeps it.

    Raises:
        CheckpointNotFoundError: If it is none of them.
    """
    path = Path(source)
    if path.is_dir():
        return path
    name = str(source)
    if _HUB_ID.fullmatch(name):
        try:
            return Path(snapshot_download(name, cache_dir=hub_cache, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError) as exc:
            raise CheckpointNotFoundError("is neither a directory nor in the local hub cache", file=name) from exc
    try:
        return bundled_model_path(name)
    except FileNotFoundError as exc:
        raise CheckpointNotFoundError("is neither a directory, a bundled model nor a hub id", file=name) from exc
