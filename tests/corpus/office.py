"""Office files, written by hand: what each must have, and some that mean harm."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from tests.corpus.archives import packed

_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
_LINKS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_MAIN = "application/vnd.openxmlformats-officedocument."

#: Namespaces of OpenDocument.
_ODF = " ".join(
    f'xmlns:{name}="{address}"'
    for name, address in {
        "office": "urn:oasis:names:tc:opendocument:xmlns:office:1.0",
        "text": "urn:oasis:names:tc:opendocument:xmlns:text:1.0",
        "draw": "urn:oasis:names:tc:opendocument:xmlns:drawing:1.0",
        "svg": "urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0",
        "script": "urn:oasis:names:tc:opendocument:xmlns:script:1.0",
        "xlink": "http://www.w3.org/1999/xlink",
        "dom": "http://www.w3.org/2001/xml-events",
        "ooo": "http://openoffice.org/2004/office",
    }.items()
)


def _types(parts: dict[str, str]) -> bytes:
    kinds = "".join(f'<Override PartName="/{name}" ContentType="{_MAIN}{kind}+xml"/>' for name, kind in parts.items())
    usual = '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    usual += '<Default Extension="xml" ContentType="text/xml"/>'
    return f'{_HEAD}<Types xmlns="{_TYPES}">{usual}{kinds}</Types>'.encode()


def _relations(targets: Sequence[tuple[str, str]], *, outside: Sequence[tuple[str, str]] = ()) -> bytes:
    """Relations r1, r2, ... to members, then those to other places."""
    found = [(kind, target, "") for kind, target in targets]
    found += [(kind, target, ' TargetMode="External"') for kind, target in outside]
    lines = (
        f'<Relationship Id="r{number}" Type="{_OFFICE}/{kind}" Target={quoteattr(target)}{mode}/>'
        for number, (kind, target, mode) in enumerate(found, 1)
    )
    return f'{_HEAD}<Relationships xmlns="{_LINKS}">{"".join(lines)}</Relationships>'.encode()


def docx(pages: Sequence[str], *, picture_url: str | None = None) -> bytes:
    """Words: one paragraph a page, and a picture that lies at ``picture_url``."""
    wall = '<w:p><w:r><w:br w:type="page"/></w:r></w:p>'
    body = wall.join(f"<w:p><w:r><w:t>{escape(text)}</w:t></w:r></w:p>" for text in pages)
    if picture_url:
        body += (
            '<w:p><w:r><w:drawing><wp:inline><wp:extent cx="900000" cy="900000"/><wp:docPr id="1" name="p"/>'
            '<a:graphic><a:graphicData uri="http://schemas.openxmlformats.org/drawingml/2006/picture"><pic:pic>'
            '<pic:nvPicPr><pic:cNvPr id="1" name="p"/><pic:cNvPicPr/></pic:nvPicPr><pic:blipFill>'
            '<a:blip r:link="r1"/></pic:blipFill><pic:spPr><a:xfrm><a:ext cx="900000" cy="900000"/></a:xfrm>'
            '<a:prstGeom prst="rect"/></pic:spPr></pic:pic></a:graphicData></a:graphic></wp:inline></w:drawing>'
            "</w:r></w:p>"
        )
    spaces = (
        'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
        f'xmlns:r="{_OFFICE}" xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
        'xmlns:pic="http://schemas.openxmlformats.org/drawingml/2006/picture" '
        'xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing"'
    )
    document = f"{_HEAD}<w:document {spaces}><w:body>{body}</w:body></w:document>".encode()
    members = [
        ("[Content_Types].xml", _types({"word/document.xml": "wordprocessingml.document.main"})),
        ("_rels/.rels", _relations([("officeDocument", "word/document.xml")])),
        ("word/document.xml", document),
    ]
    if picture_url:
        members.append(("word/_rels/document.xml.rels", _relations([], outside=[("image", picture_url)])))
    return packed(members)


def xlsx(cells: Sequence[str], *, formula: str | None = None) -> bytes:
    """A sheet with one column; ``formula`` stands below, to be computed on opening."""
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    rows = [f'<c r="A{n}" t="inlineStr"><is><t>{escape(text)}</t></is></c>' for n, text in enumerate(cells, 1)]
    if formula:
        rows.append(f'<c r="A{len(rows) + 1}"><f>{escape(formula)}</f></c>')
    data = "".join(f'<row r="{n}">{row}</row>' for n, row in enumerate(rows, 1))
    sheet = f"{_HEAD}<worksheet {space}><sheetData>{data}</sheetData></worksheet>".encode()
    book = (
        f'{_HEAD}<workbook {space} xmlns:r="{_OFFICE}"><sheets><sheet name="a" sheetId="1" r:id="r1"/></sheets>'
        '<calcPr fullCalcOnLoad="1"/></workbook>'
    ).encode()
    kinds = {"xl/workbook.xml": "spreadsheetml.sheet.main", "xl/worksheets/sheet1.xml": "spreadsheetml.worksheet"}
    return packed(
        [
            ("[Content_Types].xml", _types(kinds)),
            ("_rels/.rels", _relations([("officeDocument", "xl/workbook.xml")])),
            ("xl/workbook.xml", book),
            ("xl/_rels/workbook.xml.rels", _relations([("worksheet", "worksheets/sheet1.xml")])),
            ("xl/worksheets/sheet1.xml", sheet),
        ]
    )


def pptx(slides: Sequence[str]) -> bytes:
    """Slides with a line of text each."""
    spaces = (
        'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
        f'xmlns:r="{_OFFICE}" xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"'
    )
    group = '<p:nvGrpSpPr><p:cNvPr id="1" name=""/><p:cNvGrpSpPr/><p:nvPr/></p:nvGrpSpPr><p:grpSpPr/>'
    numbers = range(1, len(slides) + 1)
    kinds = {"ppt/presentation.xml": "presentationml.presentation.main"}
    kinds |= {f"ppt/slides/slide{n}.xml": "presentationml.slide" for n in numbers}
    listed = "".join(f'<p:sldId id="{255 + n}" r:id="r{n}"/>' for n in numbers)
    deck = (
        f'{_HEAD}<p:presentation {spaces}><p:sldIdLst>{listed}</p:sldIdLst><p:sldSz cx="9144000" cy="6858000"/>'
        '<p:notesSz cx="6858000" cy="9144000"/></p:presentation>'
    ).encode()
    members = [
        ("[Content_Types].xml", _types(kinds)),
        ("_rels/.rels", _relations([("officeDocument", "ppt/presentation.xml")])),
        ("ppt/presentation.xml", deck),
        ("ppt/_rels/presentation.xml.rels", _relations([("slide", f"slides/slide{n}.xml") for n in numbers])),
    ]
    for number, text in enumerate(slides, 1):
        shape = (
            '<p:sp><p:nvSpPr><p:cNvPr id="2" name="t"/><p:cNvSpPr txBox="1"/><p:nvPr/></p:nvSpPr><p:spPr><a:xfrm>'
            '<a:off x="900000" y="900000"/><a:ext cx="7000000" cy="900000"/></a:xfrm><a:prstGeom prst="rect"/>'
            f"</p:spPr><p:txBody><a:bodyPr/><a:p><a:r><a:t>{escape(text)}</a:t></a:r></a:p></p:txBody></p:sp>"
        )
        slide = f"{_HEAD}<p:sld {spaces}><p:cSld><p:spTree>{group}{shape}</p:spTree></p:cSld></p:sld>".encode()
        members.append((f"ppt/slides/slide{number}.xml", slide))
    return packed(members)


def odt(body: str, *, macro: str | None = None) -> bytes:
    """OpenDocument text around ``body`` (XML); ``macro`` is Basic whose ``Main`` runs when the file is opened."""
    listener = ""
    if macro is not None:
        address = "vnd.sun.star.script:Standard.Module1.Main?language=Basic&amp;location=document"
        listener = (
            '<office:scripts><office:event-listeners><script:event-listener script:language="ooo:script" '
            f'script:event-name="dom:load" xlink:href="{address}" xlink:type="simple"/></office:event-listeners>'
            "</office:scripts>"
        )
    content = (
        f'{_HEAD}<office:document-content {_ODF} office:version="1.2">{listener}<office:body><office:text>{body}'
        "</office:text></office:body></office:document-content>"
    ).encode()
    members = [("mimetype", b"application/vnd.oasis.opendocument.text"), ("content.xml", content)]
    if macro is not None:
        members += _basic(macro)
    return packed([*members, ("META-INF/manifest.xml", _manifest([name for name, _ in members[1:]]))])


def _basic(macro: str) -> list[tuple[str, bytes]]:
    space = 'xmlns:library="http://openoffice.org/2000/library" xmlns:xlink="http://www.w3.org/1999/xlink"'
    script = 'xmlns:script="http://openoffice.org/2000/script"'
    library, named = "library:library", 'library:name="Standard"'
    libraries = f'<library:libraries {space}><{library} {named} library:link="false"/></library:libraries>'
    modules = f'<{library} {space} {named}><library:element library:name="Module1"/></{library}>'
    kind = 'script:name="Module1" script:language="StarBasic"'
    source = f"<script:module {script} {kind}>{escape(macro)}</script:module>"
    found = {"Basic/script-lc.xml": libraries, "Basic/Standard/script-lb.xml": modules}
    found["Basic/Standard/Module1.xml"] = source
    return [(name, (_HEAD + text).encode()) for name, text in found.items()]


def _manifest(names: Sequence[str]) -> bytes:
    space = 'xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"'
    kinds = {"/": "application/vnd.oasis.opendocument.text"} | dict.fromkeys(names, "text/xml")
    entries = "".join(
        f'<manifest:file-entry manifest:full-path="{name}" manifest:media-type="{kind}"/>'
        for name, kind in kinds.items()
    )
    return f"{_HEAD}<manifest:manifest {space}>{entries}</manifest:manifest>".encode()


def linked_picture(url: str) -> str:
    """For `odt`: a picture that lies elsewhere."""
    return (
        '<text:p><draw:frame text:anchor-type="as-char" svg:width="3cm" svg:height="3cm"><draw:image '
        f'xlink:href={quoteattr(url)} xlink:type="simple" xlink:show="embed" xlink:actuate="onLoad"/>'
        "</draw:frame></text:p>"
    )


def linked_section(url: str) -> str:
    """For `odt`: text that lies elsewhere."""
    source = f'<text:section-source xlink:href={quoteattr(url)} xlink:type="simple"/>'
    return f'<text:section text:name="s">{source}<text:p>nothing</text:p></text:section>'
