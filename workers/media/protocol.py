"""What passes between a worker and its media processes: JSON headers and raw uint8, never pickle.

A job is one JSON message. Its answer is one JSON message and, if it went well, one message per tile with the tile's
bytes, row-major RGB.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ovis_engine.tiling import TiledImage
from workers.media.answers import DocumentProbe, PageSize

#: Longest header either side accepts.
MAX_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class MediaLimits:
    """What one job may use."""

    max_input_bytes: int
    max_pixels: int
    timeout_s: float
    cpu_s: int


@dataclass(frozen=True)
class MediaJob:
    """Fetch one picture, decode it and cut it into tiles.

    Attributes:
        url: Where the bytes are.
        trusted: The URL is one that the worker presigned; otherwise it is the caller's and the egress policy holds.
        allow_http, allow_networks: The egress policy.
        side: Side of a tile, in pixels.
        max_partition: Most tiles of the grid.
        what: Whether to prepare a picture or to look how many pages there are.
        page: Which page to prepare, from 1; None takes the first picture.
    """

    url: str
    trusted: bool
    allow_http: bool
    allow_networks: tuple[str, ...]
    side: int
    max_partition: int
    limits: MediaLimits
    what: Literal["prepare", "probe"] = "prepare"
    page: int | None = None


def send_job(connection: Connection, job: MediaJob) -> None:
    """Send a job to a media process."""
    connection.send_bytes(json.dumps(asdict(job)).encode())


def receive_job(connection: Connection) -> MediaJob:
    """Wait for a job; raise ``EOFError`` once the worker is gone."""
    fields = json.loads(connection.recv_bytes(MAX_HEADER_BYTES))
    fields["allow_networks"] = tuple(fields["allow_networks"])
    return MediaJob(**{**fields, "limits": MediaLimits(**fields["limits"])})


def send_tiles(connection: Connection, image: TiledImage) -> None:
    """Answer with tiles."""
    header = {
        "ok": True,
        "rows": image.rows,
        "cols": image.cols,
        "width": image.width,
        "height": image.height,
        "side": image.side,
        "tiles": [tile.shape[:2] for tile in image.tiles],
    }
    connection.send_bytes(json.dumps(header).encode())
    for tile in image.tiles:
        connection.send_bytes(np.ascontiguousarray(tile).data.cast("B"))


def send_probe(connection: Connection, probe: DocumentProbe) -> None:
    """Answer with what a document is."""
    pages = [(page.width, page.height) for page in probe.pages]
    connection.send_bytes(json.dumps({"ok": True, "format": probe.format, "pages": pages}).encode())


def send_error(connection: Connection, code: str, detail: str) -> None:
    """Answer with an error of ``contract.errors``."""
    connection.send_bytes(json.dumps({"ok": False, "code": code, "detail": detail[:1000]}).encode())


def receive_header(connection: Connection) -> dict[str, Any]:
    """The header of an answer."""
    header: dict[str, Any] = json.loads(connection.recv_bytes(MAX_HEADER_BYTES))
    return header


def read_probe(header: dict[str, Any]) -> DocumentProbe:
    """The document that ``header`` describes."""
    return DocumentProbe(header["format"], tuple(PageSize(*page) for page in header["pages"]))


def receive_tiles(connection: Connection, header: dict[str, Any]) -> TiledImage:
    """The tiles that ``header`` announces.

    Raises:
        ValueError: The bytes don't match the header.
    """
    tiles = tuple(_receive_tile(connection, shape, header["side"]) for shape in header["tiles"])
    return TiledImage(
        rows=header["rows"],
        cols=header["cols"],
        width=header["width"],
        height=header["height"],
        side=header["side"],
        tiles=tiles,
    )


def _receive_tile(connection: Connection, shape: Sequence[int], side: int) -> npt.NDArray[np.uint8]:
    height, width = shape
    if not (1 <= height <= side and 1 <= width <= side):
        raise ValueError(f"a tile of {width} x {height} pixels for a side of {side}")
    data = connection.recv_bytes(height * width * 3)
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)
