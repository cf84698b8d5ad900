"""PDF files, written by hand: plain ones for tests, and hostile ones with the error codes that each may end as."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

from tests.corpus.pictures import FINE, LIMIT, cut, zeros

DAMAGED, ENCRYPTED, DIED = "damaged_document", "encrypted_document", "media_process_died"

A4 = (595, 842)


def pdf(objects: Sequence[bytes], *, trailer: bytes = b"", startxref: int | None = None) -> bytes:
    """A file of objects numbered from 1; the first is the catalogue."""
    body, places = bytearray(b"%PDF-1.7\n"), []
    for number, content in enumerate(objects, start=1):
        places.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    at = len(body) if startxref is None else startxref
    body += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    body += b"".join(b"%010d 00000 n \n" % place for place in places)
    body += b"trailer\n<</Size %d /Root 1 0 R %s>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, trailer, at)
    return bytes(body)


def stream(data: bytes, extra: bytes = b"") -> bytes:
    return b"<</Length %d %s>>\nstream\n%s\nendstream" % (len(data), extra, data)


def document(contents: Sequence[bytes], *, size: tuple[float, float] = A4, catalogue: bytes = b"") -> bytes:
    """A page per content stream, with Courier as /F1."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * index) for index in range(len(contents)))
    objects = [
        b"<</Type /Catalog /Pages 2 0 R %s>>" % catalogue,
        b"<</Type /Pages /Kids [%s] /Count %d /MediaBox [0 0 %g %g] /Resources <</Font <</F1 3 0 R>>>>>>"
        % (kids, len(contents), *size),
        b"<</Type /Font /Subtype /Type1 /BaseFont /Courier>>",
    ]
    for index, content in enumerate(contents):
        objects += [b"<</Type /Page /Parent 2 0 R /Contents %d 0 R>>" % (5 + 2 * index), stream(content)]
    return pdf(objects)


def lines(text: Sequence[str], *, top: float = 780, left: float = 50, font_size: float = 12) -> bytes:
    """A content stream that writes lines in /F1."""
    shown = b"".join(b"(%s) Tj T*\n" % line.encode("latin-1") for line in text)
    return b"BT /F1 %g Tf %g TL %g %g Td\n%sET" % (font_size, 1.2 * font_size, left, top, shown)


def written(pages: Sequence[Sequence[str]], *, size: tuple[float, float] = A4, font_size: float = 12) -> bytes:
    """A born-digital document: lines of text per page."""
    top = size[1] - 2 * font_size
    return document([lines(page, top=top, left=font_size, font_size=font_size) for page in pages], size=size)


def scanned(pixels: bytes, width: int, height: int, *, size: tuple[float, float] = A4) -> bytes:
    """A page that is one grey picture, without text."""
    place = b"q %g 0 0 %g 0 0 cm /Im Do Q" % size
    picture = b"/Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceGray /BitsPerComponent 8"
    return pdf(
        [
            b"<</Type /Catalog /Pages 2 0 R>>",
            b"<</Type /Pages /Kids [3 0 R] /Count 1>>",
            b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 %g %g] /Contents 4 0 R /Resources <</XObject <</Im 5 0 R>>>>>>"
            % size,
            stream(place),
            stream(zlib.compress(pixels), picture % (width, height) + b" /Filter /FlateDecode"),
        ]
    )


def encrypted() -> bytes:
    secret = b"/Encrypt <</Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s>>> /ID [<00> <00>]" % (
        b"ab" * 32,
        b"cd" * 32,
    )
    page = b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 99 99]>>"
    return pdf(
        [b"<</Type /Catalog /Pages 2 0 R>>", b"<</Type /Pages /Kids [3 0 R] /Count 1>>", page],
        trailer=secret,
    )


def many_pages(count: int, *, claimed: int | None = None) -> bytes:
    """Small pages in one flat tree."""
    kids = b" ".join(b"%d 0 R" % (3 + index) for index in range(count))
    page = b"<</Type /Page /Parent 2 0 R>>"
    head = [
        b"<</Type /Catalog /Pages 2 0 R>>",
        b"<</Type /Pages /Kids [%s] /Count %d /MediaBox [0 0 99 99]>>" % (kids, claimed or count),
    ]
    return pdf([*head, *[page] * count])


def tree_that_loops() -> bytes:
    return pdf([b"<</Type /Catalog /Pages 2 0 R>>", b"<</Type /Pages /Kids [2 0 R 2 0 R] /Count 9 /Parent 2 0 R>>"])


def form_that_draws_itself() -> bytes:
    form = b"/Type /XObject /Subtype /Form /BBox [0 0 99 99] /Resources <</XObject <</X 5 0 R>>>>"
    return pdf(
        [
            b"<</Type /Catalog /Pages 2 0 R>>",
            b"<</Type /Pages /Kids [3 0 R] /Count 1>>",
            b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 99 99] /Contents 4 0 R /Resources <</XObject <</X 5 0 R>>>>>>",
            stream(b"/X Do"),
            stream(b"/X Do /X Do", form),
        ]
    )


def forms_that_multiply(depth: int = 9, each: int = 12) -> bytes:
    """Each form draws the next one a dozen times: five thousand million rectangles."""
    forms = [
        stream(
            b"/X Do " * each,
            b"/Type /XObject /Subtype /Form /BBox [0 0 99 99] /Resources <</XObject <</X %d 0 R>>>>" % (6 + level),
        )
        for level in range(depth)
    ]
    last = stream(b"0 0 9 9 re f", b"/Type /XObject /Subtype /Form /BBox [0 0 99 99]")
    return pdf(
        [
            b"<</Type /Catalog /Pages 2 0 R>>",
            b"<</Type /Pages /Kids [3 0 R] /Count 1>>",
            b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 99 99] /Contents 4 0 R /Resources <</XObject <</X 5 0 R>>>>>>",
            stream(b"/X Do"),
            *forms,
            last,
        ]
    )


def length_of_itself() -> bytes:
    return document([b"0 0 9 9 re f"]).replace(b"<</Length 12 >>", b"<</Length 5 0 R>>")


def packed(data: bytes, *, times: int = 1) -> bytes:
    """A page whose content is deflated ``times`` times; ``data`` is already once."""
    for _ in range(times - 1):
        data = zlib.compress(data, 9)
    content = stream(data, b"/Filter [%s]" % (b"/FlateDecode " * times))
    return pdf(
        [
            b"<</Type /Catalog /Pages 2 0 R>>",
            b"<</Type /Pages /Kids [3 0 R] /Count 1>>",
            b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 99 99] /Contents 4 0 R>>",
            content,
        ]
    )


def huge_picture() -> bytes:
    """A page with a picture of 60 000 x 60 000 grey pixels, of which there are a few."""
    return scanned(b"\0" * 1000, 60_000, 60_000)


SCRIPT = b"/OpenAction <</S /JavaScript /JS (while \\(true\\) app.alert\\(1\\))>>"
LAUNCH = b"/OpenAction <</S /Launch /F (/bin/sh)>>"

#: Name -> (how to make it, the codes that looking at it and rendering its first page may end as).
PDFS: dict[str, tuple[Callable[[], bytes], set[str]]] = {
    "pdf header only": (lambda: b"%PDF-1.7\n", {DAMAGED}),
    "pdf without objects": (lambda: b"%PDF-1.7\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF", {DAMAGED}),
    "pdf without pages": (
        lambda: pdf([b"<</Type /Catalog /Pages 2 0 R>>", b"<</Type /Pages /Kids [] /Count 0>>"]),
        {DAMAGED},
    ),
    "encrypted pdf": (encrypted, {ENCRYPTED}),
    "100 000 pages": (lambda: many_pages(100_000), {LIMIT}),
    "claims 100 000 pages": (lambda: many_pages(1, claimed=100_000), {LIMIT, FINE, DAMAGED}),
    "claims 2 000 000 000 pages": (lambda: many_pages(1, claimed=2_000_000_000), {LIMIT, FINE, DAMAGED}),
    "claims fewer than no pages": (lambda: many_pages(1, claimed=-5), {DAMAGED, FINE}),
    "a page of 1 km": (lambda: document([lines(["far away"])], size=(2_834_646, 2_834_646)), {FINE}),
    "a page of 1 km by nothing": (lambda: document([b""], size=(2_834_646, 0.0001)), {FINE, DAMAGED}),
    "a page of 1e30": (lambda: document([b""], size=(1e30, 1e30)), {FINE, DAMAGED}),
    "javascript": (lambda: document([lines(["hello"])], catalogue=SCRIPT), {FINE}),
    "launch action": (lambda: document([lines(["hello"])], catalogue=LAUNCH), {FINE}),
    "page tree that loops": (tree_that_loops, {DAMAGED, FINE}),
    "form that draws itself": (form_that_draws_itself, {FINE, DAMAGED, DIED, LIMIT}),
    "forms that multiply": (forms_that_multiply, {FINE, LIMIT, DIED}),
    "length of itself": (length_of_itself, {FINE, DAMAGED}),
    "broken xref": (lambda: document([lines(["hello"])]).replace(b"0000000", b"0000007"), {FINE, DAMAGED}),
    "xref beyond the end": (lambda: pdf([b"<</Type /Catalog>>"], startxref=10**9), {DAMAGED}),
    "truncated pdf": (lambda: cut(document([lines(["hello"])] * 20), 0.5), {FINE, DAMAGED}),
    "huge stream": (lambda: packed(zeros(1536 << 20)), {FINE, LIMIT, DAMAGED, DIED}),
    "nested compression": (lambda: packed(zeros(512 << 20), times=4), {FINE, LIMIT, DAMAGED, DIED}),
    "huge picture": (huge_picture, {FINE, LIMIT, DAMAGED, DIED}),
    "a million saved states": (lambda: document([b"q " * 1_000_000]), {FINE, DAMAGED}),
    "nested arrays": (lambda: document([b"[" * 500_000]), {FINE, DAMAGED}),
    "dictionaries a million deep": (
        lambda: pdf([b"<</Type /Catalog /Pages 2 0 R>>", b"<</A " * 1_000_000]),
        {DAMAGED, FINE},
    ),
}
