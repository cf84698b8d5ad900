"""What a media process does with one job: fetch, decode, cut. No pipe and no limits of the process here."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from functools import partial

from PIL import Image

from contract.egress import EgressPolicy
from contract.errors import (
    CallerError,
    DamagedVideo,
    FleetError,
    InvalidRequest,
    LimitExceeded,
    NotADocument,
    NotAVideo,
)
from contract.pages import select_pages
from ovis_engine.errors import DamagedVideoError, NoVideoStreamError, VideoError, VideoTooLargeError
from ovis_engine.tiling import TiledImage, tile_image
from ovis_engine.video import ClipLimits, PyAvReader
from workers.media.answers import DocumentProbe, Frames, PageSize, Prepared, VideoProbe
from workers.media.broken import blamed_on, is_ours
from workers.media.decode import check_pixels, decode_image, open_image
from workers.media.documents import DocumentLimits, check_page, look, looks_like_a_document, pages_with_text
from workers.media.inputs import Input, Inputs
from workers.media.protocol import Answer, MediaJob, Prepare, Probe, Sample
from workers.media.visible import visible

#: Share of a look's time in which pages are searched for text.
_TEXT_SHARE = 0.4

#: Matroska and WebM, AVI, FLV, ASF, Ogg, MPEG program and transport streams; MP4 and its kin say ``ftyp``.
_VIDEO_SIGNATURES = (b"\x1aE\xdf\xa3", b"RIFF", b"FLV", b"0&\xb2u\x8ef\xcf\x11", b"OggS", b"\0\0\1\xba", b"G")

_TURNS = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}


def perform(job: MediaJob, inputs: Inputs) -> Answer:
    """Do a job.

    Raises:
        FleetError: What was wrong with the input, or the object store.
        MemoryError: It needs more memory than the process may have.
        ReaderBroke: The input made its reader fail in a way that nobody foresaw.
    """
    found = _fetch(job, inputs)
    try:
        return _read(job, found)
    except (FleetError, MemoryError) as exc:
        # A bad page leaves the document as it was; anything else may not.
        if found.document is None or not isinstance(exc, CallerError):
            inputs.forget(found)
        raise
    except Exception as exc:
        if is_ours(exc):
            raise
        raise blamed_on(job.work, found.data, exc) from exc


def _read(job: MediaJob, found: Input) -> Answer:
    if isinstance(job.work, Probe):
        return _probe(job, job.work, found)
    if isinstance(job.work, Sample):
        return _sample(job, job.work, found)
    return _prepare(job, job.work, found)


def _fetch(job: MediaJob, inputs: Inputs) -> Input:
    origin, limits = job.origin, job.limits
    networks = tuple(ipaddress.ip_network(network) for network in origin.allow_networks)
    policy = None if origin.trusted else EgressPolicy(allow_http=origin.allow_http, allow_networks=networks)
    # A plain picture is asked for once.
    wanted_again = not (isinstance(job.work, Prepare) and job.work.page is None)
    return inputs.get(
        origin.url,
        policy=policy,
        max_bytes=limits.max_input_bytes,
        timeout_s=limits.timeout_s,
        keep_bytes=limits.cache_bytes if wanted_again else 0,
    )


def _probe(job: MediaJob, work: Probe, found: Input) -> DocumentProbe | VideoProbe:
    if work.as_picture:
        image = open_image(found.data)
        check_pixels(image, job.limits.max_pixels)
        return DocumentProbe("picture", (PageSize(*image.size),))
    if looks_like_a_document(found.data):
        document = found.opened(_document_limits(job))
        probe = look(document)
        if not work.own_text:
            return probe
        pages = select_pages(work.pages, document.num_pages)
        return replace(probe, own_text=pages_with_text(document, pages, _seconds_for_text(job)))
    try:
        facts = _reader(job).probe(found.data)
    except VideoTooLargeError as exc:
        raise LimitExceeded(exc.message) from exc
    except VideoError as exc:
        raise _damaged(exc, found.data, NotADocument, "document, picture or video") from exc
    return VideoProbe(facts.duration_s, facts.width, facts.height, facts.num_frames, facts.fps)


def _damaged(exc: VideoError, data: bytes, unknown: type[CallerError], what: str) -> CallerError:
    """The error for a clip that can't be read; ``unknown`` for bytes that don't even look like one."""
    if isinstance(exc, NoVideoStreamError):
        return NotAVideo("the file holds no moving pictures")
    looks_like_a_video = data[4:8] == b"ftyp" or data.startswith(_VIDEO_SIGNATURES)
    if isinstance(exc, DamagedVideoError) and not looks_like_a_video:
        return unknown(f"the bytes are no {what} that is read here")
    return DamagedVideo(exc.message)


def _prepare(job: MediaJob, work: Prepare, found: Input) -> Prepared:
    text = None
    if work.page is None:
        image = decode_image(found.data, max_pixels=job.limits.max_pixels)
    else:
        document = found.opened(_document_limits(job))
        check_page(document, work.page)
        text = document.text(work.page) if work.want_text or work.text_suffices else None
        if text and work.text_suffices:
            return Prepared(None, has_ink=True, text=text)
        image = document.picture(
            work.page, side=work.side, max_partition=work.max_partition, max_pixels=job.limits.max_pixels
        )
    image, inked = visible(image)
    if work.rotate:
        image = _turned(image, work.rotate)
    return Prepared(_cut(image, side=work.side, max_partition=work.max_partition), inked, text)


def _sample(job: MediaJob, work: Sample, found: Input) -> Frames:
    if looks_like_a_document(found.data):
        raise NotAVideo("the bytes are a document or a picture, not a video")
    cut = partial(_cut, side=work.side, max_partition=work.max_partition)
    try:
        read = _reader(job).read(found.data, work.sampling, cut)
    except VideoTooLargeError as exc:
        raise LimitExceeded(exc.message) from exc
    except VideoError as exc:
        raise _damaged(exc, found.data, NotAVideo, "video") from exc
    times_s, images = tuple(zip(*read.frames, strict=True))
    return Frames(images, times_s, read.duration_s)


def _cut(image: Image.Image, *, side: int, max_partition: int) -> TiledImage:
    try:
        return tile_image(image, side=side, max_partition=max_partition)
    except MemoryError as exc:
        raise LimitExceeded("cutting the picture needs more memory than allowed") from exc


def _turned(image: Image.Image, degrees: int) -> Image.Image:
    """Turned clockwise."""
    if degrees not in _TURNS:
        raise InvalidRequest(f"a page can be turned by 90, 180 or 270 degrees, not {degrees}")
    return image.transpose(_TURNS[degrees])


def _seconds_for_text(job: MediaJob) -> float:
    """For how long a look may search pages for text: the rest of its time is for the others."""
    return min(job.limits.timeout_s, job.limits.cpu_s) * _TEXT_SHARE


def _reader(job: MediaJob) -> PyAvReader:
    return PyAvReader(ClipLimits(job.limits.max_pixels, job.limits.max_frames))


def _document_limits(job: MediaJob) -> DocumentLimits:
    limits = job.limits
    return DocumentLimits(
        limits.max_pages, limits.max_pixels, limits.max_input_bytes, limits.timeout_s, job.office_command
    )
