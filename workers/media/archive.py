"""ZIP files of pictures as pages. Nothing is unpacked to disk and no name in the archive is ever used as a path."""

from __future__ import annotations

import io
import re
import struct
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import Image

from contract.errors import CallerError, DamagedDocument, EncryptedDocument, LimitExceeded, NotADocument
from workers.media.answers import DocumentFormat, PageSize
from workers.media.picture_pages import PicturePages

#: Endings of what is taken for a picture. Other files of an archive are not pages.
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})

#: Endings of archives, which are refused inside an archive.
ARCHIVES = frozenset({".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst"})

#: Times that the unpacked pictures may outweigh the archive. Pictures are compressed already.
MAX_RATIO = 100

#: Bytes that pictures may unpack to whatever the ratio: uncompressed white pages pack well.
ALWAYS_ALLOWED_BYTES = 64 << 20

#: Entries of an archive per page that it may have; folders and other files count.
ENTRIES_PER_PAGE = 4

_ENTRY_SIGNATURE = b"PK\x01\x02"
_ENCRYPTED_FLAG = 1

#: What the standard library raises on archives that it can't read: ``NotImplementedError`` for a compression or a
#: version of the format that it lacks, ``RuntimeError`` where one wants a password, the others for damage.
UNREADABLE_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    ValueError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True)
class _Place:
    """Where a page is: the frame (from 1) of a member, and its size."""

    member: zipfile.ZipInfo
    frame: int
    size: PageSize


class ArchivePages:
    """A ZIP of pictures in the natural order of their names; a picture with several frames has several pages."""

    format: DocumentFormat = "zip"

    def __init__(self, data: bytes, *, max_pages: int, max_pixels: int, max_member_bytes: int) -> None:
        """Read the directory and every picture's header.

        Raises:
            NotADocument: It holds no pictures.
            DamagedDocument: It can't be read.
            EncryptedDocument: A picture in it wants a password.
            LimitExceeded: Too many entries or pages, archives inside, or it unpacks to too much.
        """
        self._max_pages, self._max_pixels, self._max_member_bytes = max_pages, max_pixels, max_member_bytes
        # Before the directory is read: a million entries take a gigabyte as objects.
        entries, most = data.count(_ENTRY_SIGNATURE), max_pages * ENTRIES_PER_PAGE
        if entries > most:
            raise LimitExceeded(f"the archive has about {entries} entries; the limit is {most}")
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(data))
        except UNREADABLE_ARCHIVE as exc:
            raise DamagedDocument("the archive can't be read") from exc
        members = _pictures(self._archive.infolist())
        _check_sizes(members, len(data))
        self._places = self._find_pages(members)
        self.num_pages = len(self._places)
        self._open: tuple[zipfile.ZipInfo, PicturePages] | None = None

    def sizes(self) -> tuple[PageSize, ...]:
        """Size of every page in pixels; zero by zero for one that can't be read."""
        return tuple(place.size for place in self._places)

    def picture(self, page: int, *, side: int, max_partition: int, max_pixels: int) -> Image.Image:
        """Decode page ``page``, counted from 1.

        Raises:
            FleetError: What is wrong with the member.
        """
        place = self._places[page - 1]
        # Two members may have one name.
        if self._open is None or self._open[0] is not place.member:
            self._open = (place.member, self._opened(self._unpacked(place.member)))
        return self._open[1].picture(place.frame, side=side, max_partition=max_partition, max_pixels=max_pixels)

    def text(self, page: int) -> None:
        """Pictures have no text of their own."""

    def close(self) -> None:
        """Free the archive."""
        self._open = None
        self._archive.close()

    def _find_pages(self, members: list[zipfile.ZipInfo]) -> list[_Place]:
        places: list[_Place] = []
        for member in members:
            places += [_Place(member, frame, size) for frame, size in enumerate(self._sizes(member), start=1)]
            if len(places) > self._max_pages:
                raise LimitExceeded(f"the archive has more pages than the limit of {self._max_pages}")
        return places

    def _sizes(self, member: zipfile.ZipInfo) -> tuple[PageSize, ...]:
        """Sizes of a member's pages; what can't be read is a page all the same, which fails by itself.

        Raises:
            LimitExceeded: It unpacks to too much.
        """
        try:
            data = self._unpacked(member)
        except DamagedDocument:
            return (PageSize(0.0, 0.0),)
        try:
            return self._opened(data).sizes()
        except CallerError:
            return (PageSize(0.0, 0.0),)

    def _opened(self, data: bytes) -> PicturePages:
        return PicturePages(data, max_pages=self._max_pages, max_pixels=self._max_pixels)

    def _unpacked(self, member: zipfile.ZipInfo) -> bytes:
        """Unpack one picture, as far as it may go whatever its header says."""
        try:
            with self._archive.open(member) as file:
                data = file.read(self._max_member_bytes + 1)
        except MemoryError as exc:
            raise LimitExceeded("unpacking a picture needs more memory than allowed") from exc
        except UNREADABLE_ARCHIVE as exc:
            raise DamagedDocument("a picture in the archive can't be unpacked") from exc
        if len(data) > self._max_member_bytes:
            raise LimitExceeded(f"a picture in the archive has more than {self._max_member_bytes} bytes")
        return data


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts names as people do: page2 before page10, upper and lower case together."""
    # Numbers by their digits: Python makes none of more than 4300.
    parts = re.split(r"(\d+)", name.casefold())
    return tuple(_number_key(part) if part.isdecimal() else (1, 0, part) for part in parts if part)


def _number_key(digits: str) -> tuple[int, int, str]:
    value = "".join(str(unicodedata.decimal(digit)) for digit in digits).lstrip("0")
    return 0, len(value), f"{value} {digits}"


def _pictures(entries: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    members = []
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if not entry.filename or entry.is_dir() or path.name.startswith(".") or "__MACOSX" in path.parts:
            continue
        if path.suffix.lower() in ARCHIVES:
            raise LimitExceeded("the archive holds another archive; archives inside archives are not opened")
        if path.suffix.lower() in PICTURES:
            members.append(entry)
    if not members:
        raise NotADocument("the archive holds no pictures")
    return sorted(members, key=lambda entry: natural_key(entry.filename))


def _check_sizes(members: list[zipfile.ZipInfo], archive_bytes: int) -> None:
    if any(member.flag_bits & _ENCRYPTED_FLAG for member in members):
        raise EncryptedDocument("a picture in the archive opens with a password only")
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        raise DamagedDocument("a picture in the archive is packed in another way than stored or deflated")
    unpacked = sum(member.file_size for member in members)
    most = max(MAX_RATIO * archive_bytes, ALWAYS_ALLOWED_BYTES)
    if unpacked > most:
        raise LimitExceeded(f"the archive's pictures unpack to {unpacked} bytes; the limit is {most}")
