"""Brings checkpoints to the machine: the model role's ``--checkpoint`` becomes a directory.

An ``s3://bucket/prefix`` is downloaded once per state of its objects (names, sizes, ETags). A directory of the cache
holds one state and appears only when it is whole:

    <cache>/<prefix>-<state>/           published
    <cache>/<prefix>-<state>.partial/   being filled; unfinished files end in .part and are continued
    <cache>/<prefix>-<state>.lock       held by the process that fills it
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import stamina
from filelock import FileLock

from contract.blobs import BlobStore, StoredObject
from contract.catalogue import ModelCard
from contract.errors import BlobsUnavailable
from contract.logs import get_logger
from ovis_engine import CheckpointError, CheckpointNotFoundError, locate_checkpoint
from ovis_engine.shards import check_weights, read_index
from workers.settings import WorkerSettings

log = get_logger(__name__)

#: What is taken of a prefix; the engine reads nothing else, least of all code.
_SUFFIXES = frozenset({".json", ".safetensors", ".txt"})
#: Files downloaded at once: one connection does not fill the line.
_PARALLEL_FILES = 4
#: Tries per file; each goes on where the one before it broke off.
_ATTEMPTS = 5
_INDEX = "model.safetensors.index.json"
_S3 = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<prefix>.+?)/*")


@dataclass(frozen=True)
class RemoteCheckpoint:
    """A prefix of a bucket as a listing showed it.

    Attributes:
        bucket: The bucket.
        prefix: Without a slash at the end.
        files: Its objects by their names under the prefix.
    """

    bucket: str
    prefix: str
    files: dict[str, StoredObject]

    @property
    def cache_name(self) -> str:
        """Directory name that is the same exactly while no object changes."""
        state = [(self.bucket, self.prefix)]
        state += [(name, f"{stored.size_bytes} {stored.etag}") for name, stored in sorted(self.files.items())]
        readable = re.sub(r"[^\w.-]", "_", PurePosixPath(self.prefix).name)
        return f"{readable}-{hashlib.sha256(repr(state).encode()).hexdigest()[:16]}"


def find_checkpoint(named: str | None, card: ModelCard, settings: WorkerSettings) -> Path:
    """The directory of what a worker shall serve.

    Args:
        named: An ``s3://bucket/prefix``, a directory, a hub id; None means the model's own: bundled, or by its hub id
            in the local hub cache.
        card: The model.
        settings: Of the store and the cache.

    Raises:
        CheckpointError: If there is none, or it is not whole.
        BlobsUnavailable: If S3 is away.
        InputUnavailable: If the bucket is not there or may not be read.
        OSError: If the cache cannot be written.
    """
    if named is not None and named.startswith("s3://"):
        return fetch_checkpoint(named, BlobStore(settings), settings.checkpoint_cache_dir.expanduser())
    return locate_checkpoint(named or card.hub_id or card.name)


def fetch_checkpoint(location: str, blobs: BlobStore, cache: Path) -> Path:
    """Downloads a checkpoint unless the cache holds it in its present state. Any number of processes may call at once.

    Args:
        location: ``s3://bucket/prefix``.
        blobs: Reads the bucket.
        cache: Made if missing.

    Raises:
        CheckpointError: If nothing is there, or what is there is not a whole checkpoint.
        BlobsUnavailable: If S3 is away; what was downloaded is kept for the next call.
        InputUnavailable: If the bucket is not there or may not be read.
        OSError: If the cache cannot be written.
    """
    remote = _list(location, blobs)
    published = cache / remote.cache_name
    if published.is_dir():
        return published
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{remote.cache_name}.lock"):
        if not published.is_dir():
            partial = cache / f"{remote.cache_name}.partial"
            partial.mkdir(exist_ok=True)
            _fill(partial, remote, blobs)
            partial.rename(published)
            log.info("checkpoint_fetched", location=location, files=len(remote.files))
    return published


def _list(location: str, blobs: BlobStore) -> RemoteCheckpoint:
    match = _S3.fullmatch(location)
    if match is None:
        raise CheckpointNotFoundError("is not of the form s3://bucket/prefix", file=location)
    bucket, prefix = match["bucket"], match["prefix"]
    files: dict[str, StoredObject] = {}
    for stored in blobs.list_objects(bucket, f"{prefix}/"):
        name = stored.key.removeprefix(f"{prefix}/")
        if "/" not in name and PurePosixPath(name).suffix in _SUFFIXES:
            files[name] = stored
    if "config.json" not in files:
        raise CheckpointNotFoundError("holds no checkpoint (no config.json)", file=location)
    return RemoteCheckpoint(bucket, prefix, files)


def _fill(partial: Path, remote: RemoteCheckpoint, blobs: BlobStore) -> None:
    """Downloads what is missing, small files first: the index tells whether it is worth fetching the shards."""
    weights = [name for name in remote.files if name.endswith(".safetensors")]
    _download_all(partial, remote, blobs, sorted(remote.files.keys() - set(weights)))
    needed = set(read_index(partial / _INDEX)) if _INDEX in remote.files else {"model.safetensors"}
    for name in sorted(needed - set(weights)):
        raise CheckpointError(f"is not under s3://{remote.bucket}/{remote.prefix}", file=name)
    _download_all(partial, remote, blobs, sorted(needed))
    try:
        check_weights(partial)
    except CheckpointError:
        # The objects themselves are damaged; once they are replaced their state has another name.
        shutil.rmtree(partial)
        raise


def _download_all(partial: Path, remote: RemoteCheckpoint, blobs: BlobStore, names: list[str]) -> None:
    with ThreadPoolExecutor(_PARALLEL_FILES) as pool:
        downloads = [pool.submit(_download, partial / name, remote, blobs) for name in names]
        try:
            for download in downloads:
                download.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _download(file: Path, remote: RemoteCheckpoint, blobs: BlobStore) -> None:
    """Brings one file, going on where an earlier call or try broke off; the file appears only when it is whole."""
    stored = remote.files[file.name]
    if file.exists():
        return
    unfinished = file.with_name(f"{file.name}.part")
    for attempt in stamina.retry_context(on=BlobsUnavailable, attempts=_ATTEMPTS, wait_max=5.0):
        with attempt:
            _append(unfinished, stored, remote.bucket, blobs)
    size_bytes = unfinished.stat().st_size
    if size_bytes != stored.size_bytes:
        unfinished.unlink()
        raise CheckpointError(f"came as {size_bytes} bytes, the listing says {stored.size_bytes}", file=file.name)
    unfinished.rename(file)


def _append(unfinished: Path, stored: StoredObject, bucket: str, blobs: BlobStore) -> None:
    with unfinished.open("ab") as target:
        start = target.tell()
        if start < stored.size_bytes:
            for piece in blobs.stream(bucket, stored, start=start):
                target.write(piece)
        target.flush()
        # A directory that was published must be whole after a power cut too.
        os.fsync(target.fileno())
