"""What passes between a worker and its media processes: JSON headers and raw uint8, never pickle.

A job is one JSON message. Its answer is one JSON message and, if it went well, what that announces: one message per
tile with the tile's bytes, row-major RGB, and one with a page's text in UTF-8.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from ovis_engine.tiling import TiledImage
from ovis_engine.video import Sampling
from workers.media.answers import DocumentFormat, DocumentProbe, Frames, PageSize, Prepared, VideoProbe

#: Longest header either side accepts: 50 000 page sizes fit.
MAX_HEADER_BYTES = 2 << 20

#: Longest text of a page, as UTF-8.
MAX_TEXT_BYTES = 4 << 20


@dataclass(frozen=True)
class MediaLimits:
    """What one job may use, and what its process may keep for the next."""

    max_input_bytes: int
    max_pixels: int
    max_pages: int
    max_frames: int
    cache_bytes: int
    timeout_s: float
    cpu_s: int


@dataclass(frozen=True)
class Origin:
    """Where an input is.

    Attributes:
        url: Where the bytes are.
        trusted: The URL is one that the worker presigned; otherwise it is the caller's and the egress policy holds.
        allow_http, allow_networks: The egress policy.
    """

    url: str
    trusted: bool
    allow_http: bool
    allow_networks: tuple[str, ...]


@dataclass(frozen=True)
class Probe:
    """Look at a document or a clip.

    Attributes:
        as_picture: Whether it must be a plain picture, as `Prepare` without a page takes it.
        own_text: Whether pages' own text is looked for.
        pages: On which pages, as ``contract.pages`` reads it; None is all.
    """

    as_picture: bool = False
    own_text: bool = False
    pages: str | None = None


@dataclass(frozen=True)
class Prepare:
    """Decode a picture, or render a page, and cut it into tiles.

    Attributes:
        side: Side of a tile, in pixels.
        max_partition: Most tiles of the grid.
        page: Page of a document, from 1; None for a plain picture.
        rotate: Degrees by which it is turned clockwise: 0, 90, 180 or 270.
        want_text: Whether the page's own text is wanted.
        text_suffices: Whether the page needs no tiles where it has text of its own.
    """

    side: int
    max_partition: int
    page: int | None
    rotate: int
    want_text: bool
    text_suffices: bool = False


@dataclass(frozen=True)
class Sample:
    """Read frames of a clip and cut each into tiles; fields as `Prepare` and `ovis_engine.video.Sampling`."""

    side: int
    max_partition: int
    sampling: Sampling


Work = Probe | Prepare | Sample


@dataclass(frozen=True)
class MediaJob:
    """One thing to do with one input."""

    origin: Origin
    work: Work
    limits: MediaLimits
    office_command: str | None


def send_job(connection: Connection, job: MediaJob) -> None:
    """Send a job to a media process."""
    connection.send_bytes(json.dumps({"kind": type(job.work).__name__, **asdict(job)}).encode())


def receive_job(connection: Connection) -> MediaJob:
    """Wait for a job; raise ``EOFError`` once the worker is gone."""
    fields = json.loads(connection.recv_bytes(MAX_HEADER_BYTES))
    origin, work = fields["origin"], fields["work"]
    if fields["kind"] == Sample.__name__:
        work["sampling"] = Sampling(**work["sampling"])
    kinds: dict[str, type[Work]] = {kind.__name__: kind for kind in get_args(Work)}
    return MediaJob(
        origin=Origin(**{**origin, "allow_networks": tuple(origin["allow_networks"])}),
        work=kinds[fields["kind"]](**work),
        limits=MediaLimits(**fields["limits"]),
        office_command=fields["office_command"],
    )


Answer = DocumentProbe | VideoProbe | Prepared | Frames


def send_answer(connection: Connection, answer: Answer) -> None:
    """Answer a job that went well."""
    if isinstance(answer, DocumentProbe):
        pages = [(page.width, page.height) for page in answer.pages]
        fields = {"format": answer.format, "pages": pages, "own_text": answer.own_text}
        _send_header(connection, {"document": fields})
    elif isinstance(answer, VideoProbe):
        _send_header(connection, {"video": asdict(answer)})
    elif isinstance(answer, Prepared):
        text = None if answer.text is None else answer.text.encode()
        size = None if text is None else len(text)
        images = () if answer.image is None else (answer.image,)
        shapes = [_shape(image) for image in images]
        _send_header(connection, {"images": shapes, "has_ink": answer.has_ink, "text_bytes": size})
        for image in images:
            _send_tiles(connection, image)
        if text is not None:
            connection.send_bytes(text)
    else:
        frames = [_shape(image) for image in answer.images]
        _send_header(connection, {"images": frames, "times_s": answer.times_s, "duration_s": answer.duration_s})
        for image in answer.images:
            _send_tiles(connection, image)


def send_error(connection: Connection, code: str, detail: str) -> None:
    """Answer with an error of ``contract.errors``."""
    connection.send_bytes(json.dumps({"ok": False, "code": code, "detail": detail[:1000]}).encode())


def receive_header(connection: Connection) -> dict[str, Any]:
    """The header of an answer."""
    header: dict[str, Any] = json.loads(connection.recv_bytes(MAX_HEADER_BYTES))
    return header


def receive_answer(connection: Connection, header: dict[str, Any], job: MediaJob) -> Answer:
    """What ``header`` announces, if it is an answer to ``job``.

    Raises:
        ValueError, KeyError, TypeError: The answer doesn't match the header, or the header the job.
        InvalidTilesError: Tiles don't match their grid.
    """
    if isinstance(job.work, Probe):
        return _video(header["video"]) if "video" in header else _document(header["document"], job.limits)
    if isinstance(job.work, Prepare):
        return _receive_prepared(connection, header, job.work)
    if not 1 <= len(header["images"]) <= job.limits.max_frames:
        raise ValueError(f"{len(header['images'])} frames for a limit of {job.limits.max_frames}")
    times_s = tuple(float(time_s) for time_s in header["times_s"])
    if len(times_s) != len(header["images"]):
        raise ValueError("frames and times differ in number")
    duration_s = float(header["duration_s"])
    if not (math.isfinite(duration_s) and duration_s > 0):
        raise ValueError("a clip that can't be")
    images = tuple(_receive_tiles(connection, shape, job.work) for shape in header["images"])
    return Frames(images, times_s, duration_s)


def _send_header(connection: Connection, header: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps({"ok": True, **header}).encode())


def _shape(image: TiledImage) -> dict[str, Any]:
    fields = {name: getattr(image, name) for name in ("rows", "cols", "width", "height", "side")}
    return {**fields, "tiles": [tile.shape[:2] for tile in image.tiles]}


def _send_tiles(connection: Connection, image: TiledImage) -> None:
    for tile in image.tiles:
        connection.send_bytes(np.ascontiguousarray(tile).data.cast("B"))


def _receive_prepared(connection: Connection, header: dict[str, Any], work: Prepare) -> Prepared:
    if not header["images"] and work.text_suffices and header["text_bytes"]:
        image = None
    else:
        (shape,) = header["images"]
        image = _receive_tiles(connection, shape, work)
    return Prepared(image, header["has_ink"] is True, _receive_text(connection, header["text_bytes"]))


def _receive_tiles(connection: Connection, shape: dict[str, Any], work: Prepare | Sample) -> TiledImage:
    if shape["side"] != work.side or len(shape["tiles"]) > work.max_partition + 1:
        raise ValueError(f"{len(shape['tiles'])} tiles of side {shape['side']} for a job of other ones")
    tiles = tuple(_receive_tile(connection, size, work.side) for size in shape["tiles"])
    return TiledImage(shape["rows"], shape["cols"], shape["width"], shape["height"], work.side, tiles)


def _receive_tile(connection: Connection, shape: Sequence[int], side: int) -> npt.NDArray[np.uint8]:
    height, width = shape
    if not (1 <= height <= side and 1 <= width <= side):
        raise ValueError(f"a tile of {width} x {height} pixels for a side of {side}")
    data = connection.recv_bytes(height * width * 3)
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


def _receive_text(connection: Connection, size: int | None) -> str | None:
    if size is None:
        return None
    if not 0 <= size <= MAX_TEXT_BYTES:
        raise ValueError(f"a text of {size} bytes")
    return connection.recv_bytes(size).decode() if size else ""


def _document(fields: dict[str, Any], limits: MediaLimits) -> DocumentProbe:
    if fields["format"] not in get_args(DocumentFormat) or not 1 <= len(fields["pages"]) <= limits.max_pages:
        raise ValueError("a document that can't be")
    pages = tuple(PageSize(float(w), float(h)) for w, h in fields["pages"])
    own_text = fields["own_text"]
    if own_text is None:
        return DocumentProbe(fields["format"], pages)
    if len(own_text) != len(pages) or not all(has is None or isinstance(has, bool) for has in own_text):
        raise ValueError("pages that can't be")
    return DocumentProbe(fields["format"], pages, tuple(own_text))


def _video(fields: dict[str, Any]) -> VideoProbe:
    probe = VideoProbe(**fields)
    if not all(math.isfinite(value) and value > 0 for value in fields.values()):
        raise ValueError("a clip that can't be")
    return probe
