"""Streams the tensors of a checkpoint's safetensors files, one file or shards; nothing else is ever read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ovis_engine.errors import CheckpointError


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as stored: the file it is in, its stored name and its value on the CPU, mapped from the file."""

    file: str
    name: str
    value: Tensor


def weights_file(directory: Path) -> Path:
    """The index of a sharded checkpoint, or the one file that holds all weights."""
    index = directory / "model.safetensors.index.json"
    return index if index.exists() else directory / "model.safetensors"


def stream_tensors(directory: Path) -> Iterator[StoredTensor]:
    """Yields every stored tensor, shard by shard. A value must not be kept past the next one: its file gets closed.

    Raises:
        CheckpointError: If a file is missing, truncated or no safetensors, or lacks a tensor that the index lists.
    """
    weights = weights_file(directory)
    if weights.suffix == ".safetensors":
        yield from _read_shard(weights, set())
        return
    for shard, names in sorted(read_index(weights).items()):
        yield from _read_shard(directory / shard, names)


def check_weights(directory: Path) -> None:
    """Checks, without reading the weights, that every file is whole and holds what the index lists.

    Raises:
        CheckpointError: As `stream_tensors`.
    """
    weights = weights_file(directory)
    listed = {weights.name: set[str]()} if weights.suffix == ".safetensors" else read_index(weights)
    for shard, names in sorted(listed.items()):
        with _opened(directory / shard, names):
            pass


def read_index(file: Path) -> dict[str, set[str]]:
    """Reads a shard index: the tensors of each shard, by the shard's file name.

    Raises:
        CheckpointError: If it is no index, or names a file outside its own directory.
    """
    try:
        weight_map: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
        shards: dict[str, set[str]] = {}
        for name, shard in weight_map.items():
            shards.setdefault(shard, set()).add(name)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as exc:
        raise CheckpointError("is not a shard index", file=file.name) from exc
    if not all(isinstance(shard, str) and shard and shard.isprintable() for shard in shards):
        raise CheckpointError("is not a shard index", file=file.name)
    if any(Path(shard).name != shard or shard == ".." for shard in shards):
        raise CheckpointError("names a file outside the checkpoint", file=file.name)
    return shards


def _read_shard(file: Path, listed: set[str]) -> Iterator[StoredTensor]:
    with _opened(file, listed) as shard:
        for name in sorted(shard.keys()):
            yield StoredTensor(file.name, name, shard.get_tensor(name))


@contextmanager
def _opened(file: Path, listed: set[str]) -> Iterator[Any]:
    """Maps a file, whose header and length are checked by that, and sees that it holds what is listed."""
    try:
        with safe_open(file, framework="pt", device="cpu") as shard:
            for name in sorted(listed - set(shard.keys())):
                raise CheckpointError("is listed in the index but not stored", file=file.name, tensor=name)
            yield shard
    except OSError as exc:
        raise CheckpointError("cannot be read", file=file.name) from exc
    except SafetensorError as exc:
        raise CheckpointError(f"is not a whole safetensors file ({exc})", file=file.name) from exc
