"""Which model answers: a mark that changes with a checkpoint's files, without reading all of its weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

#: Bytes looked at in each of ``_PLACES`` evenly spread places of a file of weights, beside its size.
_PIECE = 1 << 16
_PLACES = 16

#: Files that are read whole: configurations and tokenizers.
_WHOLE_BYTES = 64 << 20


def checkpoint_revision(directory: Path) -> str:
    """Hex digest over names, sizes and contents of a checkpoint's files; of large ones pieces alone are read.

    Raises:
        OSError: A file can't be read.
    """
    digest = hashlib.sha256()
    for file in sorted(directory.iterdir()):
        if file.suffix not in (".json", ".safetensors", ".txt") or not file.is_file():
            continue
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            if size <= _WHOLE_BYTES:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
                continue
            for place in range(_PLACES):
                stream.seek((size - _PIECE) * place // (_PLACES - 1))
                digest.update(stream.read(_PIECE))
    return digest.hexdigest()
