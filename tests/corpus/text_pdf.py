"""PDF files of monospaced print that the bundled model can read, written by hand.

They bring their font, as what PDFium draws without one depends on the machine's fonts. ``mono.ttf`` holds the ASCII of
DejaVu Sans Mono under another name; its licence stands in its name table.
"""

from __future__ import annotations

import random
from pathlib import Path

#: Side of a page in points, and what of it the bundled model reads: 16 px of advance and 30 px of pitch at 336 px.
SIDE_PT = 252.0
FONT_PT = 20.0
PITCH_PT = 23.0
MARGIN_PT = 12.0

_FONT, _FONT_FILE = "OvisTestMono", Path(__file__).with_name("mono.ttf")

_WORDS = (
    *("invoice", "total", "amount", "paid", "order", "number", "customer", "street", "report", "page", "fleet"),
    *("winter", "garden", "bread", "coffee", "sugar", "paper", "metal", "delivery", "monday", "april", "green"),
)


def make_lines(page: int, *, num_lines: int = 8, width: int = 17) -> list[str]:
    """What stands on a page: words and numbers, the same for the same page; the first line has its number."""
    chosen = random.Random(page)
    lines = [f"PAGE {page} OF FILE"]
    while len(lines) < num_lines:
        line = f"{chosen.choice(_WORDS)} {chosen.randint(1, 999)}"
        if len(line) + 7 < width:
            line += f" {chosen.choice(('paid', 'open', 'sent'))}"
        lines.append(line[:width])
    return lines


def make_pdf(pages: list[list[str]]) -> bytes:
    """A PDF with one page for each list of lines."""
    after = 4 + 2 * len(pages)
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} /MediaBox [0 0 {SIDE_PT:g} {SIDE_PT:g}] >>",
        f"<< /Type /Font /Subtype /TrueType /BaseFont /{_FONT} /FirstChar 32 /LastChar 126 /Widths [{'602 ' * 95}] "
        f"/Encoding /WinAnsiEncoding /FontDescriptor {after} 0 R >>",
    ]
    for number, lines in enumerate(pages):
        content = _content(lines)
        resources = "/Resources << /Font << /F1 3 0 R >> >>"
        objects.append(f"<< /Type /Page /Parent 2 0 R {resources} /Contents {5 + 2 * number} 0 R >>")
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    return _file([*objects, *_font_objects(after)])


def _font_objects(number: int) -> tuple[str, str]:
    """The font's descriptor, which becomes the object ``number``, and after it the font itself."""
    data = _FONT_FILE.read_bytes()
    descriptor = (
        f"<< /Type /FontDescriptor /FontName /{_FONT} /Flags 33 /FontBBox [-558 -375 718 1042] /ItalicAngle 0 "
        f"/Ascent 760 /Descent -240 /CapHeight 729 /StemV 80 /FontFile2 {number + 1} 0 R >>"
    )
    lengths = f"/Length {len(data)} /Length1 {len(data)}"
    return descriptor, f"<< {lengths} >>\nstream\n{data.decode('latin-1')}\nendstream"


def _content(lines: list[str]) -> str:
    top = SIDE_PT - MARGIN_PT - FONT_PT
    shown = (line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)") for line in lines)
    return (
        f"BT /F1 {FONT_PT:g} Tf {PITCH_PT:g} TL {MARGIN_PT:g} {top:g} Td "
        + " ".join(f"({s}) Tj T*" for s in shown)
        + " ET"
    )


def _file(objects: list[str]) -> bytes:
    written, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        offsets.append(len(written))
        written += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    trailer = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(written)}\n%%EOF\n"
    return bytes(written) + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{trailer}".encode()
