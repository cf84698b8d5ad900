"""Which kind of document some bytes are, and how to open it. Runs in media processes only."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from contract.errors import CallerError, NotADocument, PageOutOfRange
from workers.media.answers import DocumentFormat, DocumentProbe, PageSize
from workers.media.archive import UNREADABLE_ARCHIVE, ArchivePages
from workers.media.office import OLE_SIGNATURE, to_pdf
from workers.media.pdf import PdfPages
from workers.media.picture_pages import PicturePages

#: A PDF's signature may stand behind this many bytes of something else.
_PDF_WITHIN = 1024

_PICTURE_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

#: Members that only Office files have: of Microsoft's formats, and of OpenDocument.
_OFFICE_MEMBERS = ("[Content_Types].xml", "META-INF/manifest.xml")

#: Members of an Office file: a deck of a thousand slides has some ten thousand.
_MAX_OFFICE_MEMBERS = 100_000


#: Knuth's multiplier: multiples of it, cut to 32 bits, are spread evenly however many are taken.
_SPREAD = 2_654_435_761


class Document(Protocol):
    """An opened document. Pages are counted from 1; a page that was not checked to be there must not be asked for."""

    @property
    def format(self) -> DocumentFormat:
        """What it is."""
        ...

    @property
    def num_pages(self) -> int:
        """How many pages it has, at least 1."""
        ...

    def sizes(self) -> tuple[PageSize, ...]:
        """Size of every page, without rendering."""
        ...

    def picture(self, page: int, *, side: int, max_partition: int, max_pixels: int) -> Image.Image:
        """One page as a picture that suits a grid of at most ``max_partition`` tiles of ``side`` pixels."""
        ...

    def text(self, page: int) -> str | None:
        """The page's own text; None where it has none."""
        ...

    def close(self) -> None:
        """Free it."""
        ...


@dataclass(frozen=True)
class DocumentLimits:
    """What opening a document may use, and the program that opens Office files."""

    max_pages: int
    max_pixels: int
    max_input_bytes: int
    timeout_s: float
    office_command: str | None


def open_document(data: bytes, limits: DocumentLimits) -> Document:
    """Open a document by its content.

    Raises:
        NotADocument: It is none.
        DamagedDocument, EncryptedDocument, OfficeUnavailable, LimitExceeded: It can't be opened.
    """
    if b"%PDF-" in data[:_PDF_WITHIN]:
        return PdfPages(data, max_pages=limits.max_pages)
    if data.startswith(OLE_SIGNATURE) or (data.startswith(b"PK") and _is_office(data)):
        pdf = to_pdf(data, command=limits.office_command, timeout_s=limits.timeout_s)
        return PdfPages(pdf, max_pages=limits.max_pages, format="office")
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return ArchivePages(
            data, max_pages=limits.max_pages, max_pixels=limits.max_pixels, max_member_bytes=limits.max_input_bytes
        )
    if looks_like_a_picture(data):
        return PicturePages(data, max_pages=limits.max_pages, max_pixels=limits.max_pixels)
    raise NotADocument("the bytes are no PDF, picture, ZIP of pictures or Office file")


def looks_like_a_picture(data: bytes) -> bool:
    """Whether the first bytes are those of a picture format that is read here."""
    return data.startswith(_PICTURE_SIGNATURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


def looks_like_a_document(data: bytes) -> bool:
    """Whether the first bytes are those of a document format that is read here."""
    return data.startswith((b"PK", OLE_SIGNATURE)) or b"%PDF-" in data[:_PDF_WITHIN] or looks_like_a_picture(data)


def look(document: Document) -> DocumentProbe:
    """A document's format and pages."""
    return DocumentProbe(document.format, document.sizes())


def pages_with_text(document: Document, pages: Sequence[int], seconds: float) -> tuple[bool | None, ...]:
    """Whether each page has text of its own, as `DocumentProbe.own_text` says it.

    Args:
        document: What to look into.
        pages: The pages that matter, from 1; the others are not looked at.
        seconds: After which the rest is left. What was looked at by then is spread over the pages that matter.
    """
    found: list[bool | None] = [None] * document.num_pages
    ends = time.monotonic() + seconds
    for page in sorted(pages, key=lambda page: page * _SPREAD % (1 << 32)):
        try:
            found[page - 1] = document.text(page) is not None
        except CallerError:
            found[page - 1] = True
        if time.monotonic() > ends:
            break
    return tuple(found)


def check_page(document: Document, page: int) -> None:
    """Check that a page is there.

    Raises:
        PageOutOfRange: It is not.
    """
    if not 1 <= page <= document.num_pages:
        raise PageOutOfRange(f"the document has {document.num_pages} pages; page {page} was asked for")


def _is_office(data: bytes) -> bool:
    """Whether the archive has a member that only Office files have."""
    # A directory of a million entries is not even read.
    if data.count(b"PK\x01\x02") > _MAX_OFFICE_MEMBERS or not any(name.encode() in data for name in _OFFICE_MEMBERS):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return not set(_OFFICE_MEMBERS).isdisjoint(archive.namelist())
    except UNREADABLE_ARCHIVE:
        return False
