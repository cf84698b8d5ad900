"""ZIP files of pictures that mean harm, with the error codes that each may end as."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Sequence

from PIL import Image

from tests.corpus.pictures import FINE, LIMIT, TRUNCATED, cut, encoded, nested_archives, noise, png

NOT_A_DOCUMENT, DAMAGED, ENCRYPTED = "not_a_document", "damaged_document", "encrypted_document"
OFFICE = "office_unavailable"


def packed(members: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def bomb() -> bytes:
    """Ten pictures of 64 MiB that take 64 KiB each."""
    header = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, 4096, 4096, 1, 32, 0, 0, 0, 0, 0, 0)
    return packed([(f"{number}.bmp", header + b"\0" * (64 << 20)) for number in range(10)])


def many_entries(count: int) -> bytes:
    """A directory of entries for one file that isn't there."""
    entry = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0) + b"a.png"
    size = len(entry) * count
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, min(count, 65535), min(count, 65535), size, 0, 0)
    return b"PK\x03\x04" + entry * count + end


def with_entry_byte(offset: int, value: int, name: str = "a.png") -> bytes:
    """An archive whose only entry in the directory has a byte of its own set."""
    data = bytearray(packed([(name, noise("PNG"))]))
    data[data.index(b"PK\x01\x02") + offset] = value
    return bytes(data)


def with_unknown_packing() -> bytes:
    """An archive whose entry is packed by a method that only few programs have, here and in its own header."""
    data = bytearray(with_entry_byte(10, 96))
    data[8] = 96
    return bytes(data)


def without_a_name() -> bytes:
    """An archive whose only entry in the directory has its name for a comment."""
    data = bytearray(packed([("a.png", noise("PNG"))]))
    at = data.index(b"PK\x01\x02")
    data[at + 28], data[at + 32] = 0, 5
    return bytes(data)


def that_lies() -> bytes:
    """A picture that unpacks to 32 MiB and claims ten bytes."""
    data = bytearray(packed([("a.bmp", b"BM" + b"\0" * (32 << 20))]))
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 10)
    return bytes(data)


#: Name -> (how to make it, the codes that looking at it and preparing its first page may end as).
ARCHIVES: dict[str, tuple[Callable[[], bytes], set[str]]] = {
    "empty zip": (lambda: packed([]), {NOT_A_DOCUMENT}),
    "zip of text": (lambda: packed([("a.txt", b"hello")]), {NOT_A_DOCUMENT}),
    "zip signature only": (lambda: b"PK\x03\x04", {DAMAGED}),
    "zip bomb": (bomb, {LIMIT}),
    "nested zips": (lambda: packed([("a.png", noise("PNG")), ("b.zip", nested_archives())]), {LIMIT}),
    "nested zips by another name": (
        lambda: packed([("b.png", nested_archives())]),
        {"truncated_image", NOT_A_DOCUMENT},
    ),
    "traversal names": (
        lambda: packed([("../../../etc/cron.d/x.png", noise("PNG")), ("/etc/passwd.png", noise("PNG"))]),
        {FINE},
    ),
    "a name of 60 000 characters": (lambda: packed([("a/" * 30_000 + "x.png", noise("PNG"))]), {FINE}),
    "a name of 5 000 digits": (lambda: packed([("9" * 5_000 + ".png", noise("PNG"))]), {FINE}),
    "an entry without a name": (without_a_name, {NOT_A_DOCUMENT}),
    "a million entries": (lambda: many_entries(1_000_000), {LIMIT}),
    "entries of nothing": (lambda: many_entries(100), {DAMAGED}),
    "encrypted zip": (lambda: with_entry_byte(8, 1), {ENCRYPTED}),
    "size that lies": (that_lies, {DAMAGED, TRUNCATED, NOT_A_DOCUMENT, LIMIT}),
    "unusual packing": (lambda: packed([("a.png", noise("PNG"))], zipfile.ZIP_LZMA), {DAMAGED}),
    "packing that isn't known": (with_unknown_packing, {DAMAGED}),
    "version of the future": (lambda: with_entry_byte(6, 99), {DAMAGED}),
    "office file of the future": (lambda: with_entry_byte(6, 99, "word/document.xml"), {DAMAGED}),
    "truncated zip": (lambda: cut(packed([("a.png", noise("PNG"))]), 0.7), {DAMAGED}),
    "zip of a pixel bomb": (lambda: packed([("a.png", encoded(Image.new("1", (20_000, 20_000)), "PNG"))]), {LIMIT}),
    "zip of a liar": (lambda: packed([("a.png", png(9_000, 9_000, pixels=b"\0" * 99))]), {TRUNCATED}),
    "office file": (lambda: packed([("[Content_Types].xml", b"<Types/>"), ("word/document.xml", b"<x/>")]), {OFFICE}),
    "old office file": (lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 4096, {OFFICE}),
}
