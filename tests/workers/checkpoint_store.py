"""A small sharded checkpoint, and stores that tell what was asked of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import torch
from safetensors.torch import load_file, save_file

from contract.blobs import BlobStore, StoredObject
from contract.errors import BlobsUnavailable
from contract.settings import FleetSettings

TINY = Path(__file__).parents[1] / "parity" / "models" / "ovis2-tiny"
SHARDS = ("model-0.safetensors", "model-1.safetensors")
PIECE = 1 << 20

#: A program that fetches a checkpoint and prints what it asked S3 for; with "stall" it hangs after the first piece.
FETCHER = """
import sys, time
from pathlib import Path
from contract.blobs import BlobStore
from contract.settings import FleetSettings
from workers.checkpoints import fetch_checkpoint

class Told(BlobStore):
    def stream(self, bucket, stored, *, start=0):
        # One write a line: several threads tell.
        sys.stdout.write(f"asked {stored.key} {start}\\n")
        sys.stdout.flush()
        for piece in super().stream(bucket, stored, start=start):
            yield piece
            while sys.argv[3] == "stall" and stored.key.endswith("1.safetensors"):
                time.sleep(0.01)

print("got", fetch_checkpoint(sys.argv[1], Told(FleetSettings()), Path(sys.argv[2])), flush=True)
"""


class Recording(BlobStore):
    """Says what was asked for; breaks off after some bytes, every time, if told to."""

    def __init__(self, settings: FleetSettings, break_after: int | None = None) -> None:
        super().__init__(settings)
        self.asked: list[tuple[str, int]] = []
        self._break_after = break_after

    def stream(self, bucket: str, stored: StoredObject, *, start: int = 0) -> Iterator[bytes]:
        self.asked.append((stored.key.rpartition("/")[2], start))
        sent = 0
        for piece in super().stream(bucket, stored, start=start):
            yield piece
            sent += len(piece)
            if self._break_after is not None and sent >= self._break_after:
                raise BlobsUnavailable("the line broke")


def sharded(directory: Path) -> Path:
    """The tiny checkpoint in two shards of some MB, the second padded."""
    directory.mkdir()
    for file in TINY.iterdir():
        if file.suffix != ".safetensors":
            (directory / file.name).write_bytes(file.read_bytes())
    tensors = load_file(TINY / "model.safetensors")
    names = sorted(tensors)
    weight_map = {name: SHARDS[index % 2] for index, name in enumerate(names)}
    for shard in SHARDS:
        held = {name: tensors[name] for name in names if weight_map[name] == shard}
        if shard == SHARDS[1]:
            held |= {"visual_tokenizer.backbone.trunk.post_trunk_norm.weight": torch.zeros(2_000_000)}
        save_file(held, directory / shard)
    weight_map["visual_tokenizer.backbone.trunk.post_trunk_norm.weight"] = SHARDS[1]
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return directory


def upload(blobs: BlobStore, directory: Path) -> str:
    """Puts a directory under a prefix of its own."""
    prefix = f"models/{uuid4().hex}/tiny"
    for file in directory.iterdir():
        blobs.put(f"{prefix}/{file.name}", file.read_bytes(), "application/octet-stream")
    return blobs.location(prefix)


def same(first: Path, second: Path) -> bool:
    names = {file.name for file in first.iterdir()}
    return names == {file.name for file in second.iterdir()} and all(
        (first / name).read_bytes() == (second / name).read_bytes() for name in names
    )
