"""Pictures that mean harm: bombs, liars, cripples and shape-shifters, each with the errors it may end as.

Every builder is cheap: what is big is big only once it is decoded.
"""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"

NOT_AN_IMAGE, TRUNCATED, LIMIT = "not_an_image", "truncated_image", "limit_exceeded"
FINE = "fine"


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *middle: bytes, pixels: bytes | None = None) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = pixels if pixels is not None else b"\0" * (height * (3 * width + 1))
    return SIGNATURE + b"".join(
        [chunk(b"IHDR", header), *middle, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    )


def zeros(size: int) -> bytes:
    """``size`` zero bytes, compressed; a thousandth of it."""
    compressor = zlib.compressobj(9)
    block = b"\0" * (1 << 20)
    return b"".join([compressor.compress(block) for _ in range(size >> 20)] + [compressor.flush()])


def noise(kind: str, **options: object) -> bytes:
    return encoded(Image.effect_noise((400, 300), 90).convert("RGB"), kind, **options)


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def nested_archives() -> bytes:
    inner = noise("PNG")
    for _ in range(20):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.png", inner)
        inner = buffer.getvalue()
    return inner


def tiff_that_loops() -> bytes:
    """A directory whose next directory is itself."""
    entries = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 0)]
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<I", 8)


def gif_of_many_frames() -> bytes:
    frame = Image.new("P", (64, 64))
    return encoded(frame, "GIF", save_all=True, append_images=[frame.point(lambda v, i=i: i % 256) for i in range(500)])


def gif(width: int, height: int, frames: Sequence[tuple[int, int]], *, broken: int | None = None) -> bytes:
    """A GIF of plain frames of these sizes on a canvas; the data of the ``broken`` one, from 1, are none."""
    out = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    for number, (columns, rows) in enumerate(frames, start=1):
        out += b"!\xf9\x04\x08\x01\0\0\0," + struct.pack("<HHHHB", 0, 0, columns, rows, 0)
        # One pixel: clear, white, end, in codes of three bits.
        out += b"\x0d\x02\xff\xff\0" if number == broken else b"\x02\x02\x4c\x01\0"
    return out + b";"


#: Name -> (how to make it, the error codes that it may end as; "fine" where it is harmless in the end).
PICTURES: dict[str, tuple[Callable[[], bytes], set[str]]] = {
    "empty": (lambda: b"", {NOT_AN_IMAGE}),
    "one byte": (lambda: b"\x89", {NOT_AN_IMAGE}),
    "signature only": (lambda: SIGNATURE, {NOT_AN_IMAGE, TRUNCATED}),
    "plain text": (lambda: b"Dear Sir or Madam,\n" * 100, {NOT_AN_IMAGE}),
    "html": (lambda: b"<!doctype html><title>404</title>", {NOT_AN_IMAGE}),
    "svg": (
        lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        {NOT_AN_IMAGE},
    ),
    "svg bomb": (
        lambda: b'<!DOCTYPE s [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><svg>&b;</svg>',
        {NOT_AN_IMAGE},
    ),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n", {NOT_AN_IMAGE}),
    "pdf": (lambda: b"%PDF-1.7\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF", {NOT_AN_IMAGE}),
    "elf": (lambda: b"\x7fELF" + b"\0" * 5000, {NOT_AN_IMAGE}),
    "gzip bomb": (lambda: gzip.compress(b"\0" * (16 << 20)), {NOT_AN_IMAGE}),
    "nested archives": (nested_archives, {NOT_AN_IMAGE}),
    "pixel bomb": (lambda: encoded(Image.new("1", (20_000, 20_000)), "PNG"), {LIMIT}),
    "claims 2^30 by 2^30": (lambda: png(2**30, 2**30, pixels=b"\0"), {LIMIT, TRUNCATED}),
    "claims 0 by 0": (lambda: png(0, 0, pixels=b"\0"), {NOT_AN_IMAGE, TRUNCATED}),
    "claims more than it has": (lambda: png(9_000, 9_000, pixels=b"\0" * 99), {TRUNCATED}),
    "text chunk bomb": (lambda: png(8, 8, chunk(b"zTXt", b"k\0\0" + zeros(256 << 20))), {FINE, TRUNCATED, LIMIT}),
    "colour profile bomb": (lambda: png(8, 8, chunk(b"iCCP", b"p\0\0" + zeros(256 << 20))), {FINE, TRUNCATED, LIMIT}),
    "a thousand text chunks": (
        lambda: png(8, 8, *[chunk(b"zTXt", b"k\0\0" + zeros(1 << 20)) for _ in range(1000)]),
        {FINE, TRUNCATED, LIMIT},
    ),
    "wrong checksum": (lambda: noise("PNG").replace(b"IDAT", b"IDAX", 1), {NOT_AN_IMAGE, TRUNCATED}),
    "truncated png": (lambda: cut(noise("PNG"), 0.5), {TRUNCATED}),
    "truncated jpeg": (lambda: cut(noise("JPEG"), 0.5), {TRUNCATED}),
    "truncated webp": (lambda: cut(noise("WEBP"), 0.5), {TRUNCATED, NOT_AN_IMAGE}),
    "truncated gif": (lambda: cut(encoded(Image.effect_noise((300, 300), 90).convert("P"), "GIF"), 0.4), {TRUNCATED}),
    "truncated bmp": (lambda: cut(noise("BMP"), 0.5), {TRUNCATED}),
    "truncated tiff": (lambda: cut(noise("TIFF"), 0.5), {TRUNCATED}),
    "tiff that loops": (tiff_that_loops, {TRUNCATED, NOT_AN_IMAGE, FINE}),
    "jpeg with huge exif": (
        lambda: encoded(Image.new("RGB", (64, 64)), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08" + b"\xff" * 65_000),
        {FINE, TRUNCATED},
    ),
    "jpeg with a huge colour profile": (
        lambda: encoded(Image.new("RGB", (64, 64)), "JPEG", icc_profile=b"\x01" * 4_000_000),
        {FINE},
    ),
    "jpeg then script": (lambda: noise("JPEG") + b"<script>alert(1)</script>" * 1000, {FINE}),
    "zip behind a gif": (lambda: encoded(Image.new("P", (9, 9)), "GIF") + nested_archives(), {FINE}),
    "many frames": (gif_of_many_frames, {FINE}),
    "one pixel high": (lambda: encoded(Image.new("RGB", (60_000, 1)), "PNG"), {FINE}),
    "noise behind a png signature": (lambda: SIGNATURE + bytes(range(256)) * 40, {NOT_AN_IMAGE, TRUNCATED}),
}
