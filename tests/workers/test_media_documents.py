"""Documents in media processes: pages of every format, and files that mean harm."""

from __future__ import annotations

import io
import os
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from contract.errors import (
    DamagedDocument,
    FleetError,
    LimitExceeded,
    MediaProcessDied,
    NotADocument,
    NotAnImage,
    OfficeUnavailable,
    PageOutOfRange,
    TruncatedImage,
)
from ovis_engine.tiling import choose_grid, tile_image
from tests.corpus import archives, pdfs
from tests.corpus.archives import ARCHIVES
from tests.corpus.pdfs import PDFS
from tests.corpus.pictures import FINE, PICTURES, encoded, gif
from tests.workers.media_web import BODIES, SENT, serving
from workers.media.answers import DocumentProbe, PageSize, Prepared
from workers.media.documents import pages_with_text
from workers.media.pdf import PdfPages
from workers.media.pool import MediaPool
from workers.media.protocol import Probe
from workers.settings import WorkerSettings

SIDE, PARTITION = 336, 6


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with serving() as url:
        yield url


def pool_of(**changes: object) -> MediaPool:
    settings = WorkerSettings(**{"media_processes": 1, **changes})  # type: ignore[arg-type]
    return MediaPool(settings, on_death=lambda _: None)


@pytest.fixture(scope="module")
def pool() -> Iterator[MediaPool]:
    """One process for many inputs: none of them may cost it its life."""
    pool = pool_of()
    (pid,) = pool.pids()
    yield pool
    assert pool.pids() == [pid]
    pool.close()


def probe(pool: MediaPool, url: str) -> DocumentProbe:
    found = pool.probe(url, trusted=True)
    assert isinstance(found, DocumentProbe)
    return found


def page(pool: MediaPool, url: str, number: int = 1, **options: object) -> Prepared:
    return pool.prepare(
        url,
        trusted=True,
        side=SIDE,
        max_partition=PARTITION,
        page=number,
        **options,  # type: ignore[arg-type]
    )


def grey(level: int, size: tuple[int, int] = (60, 40)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def level_of(prepared: Prepared) -> int:
    return round(float(prepared.image.tiles[0].mean()))


LEVELS = [10, 60, 110, 160, 210]


def frames_as(kind: str, **options: object) -> bytes:
    first, *rest = [grey(level) for level in LEVELS]
    return encoded(first, kind, save_all=True, append_images=rest, **options)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("tiff", frames_as("TIFF")),
        ("gif", frames_as("GIF", duration=50)),
        ("webp", frames_as("WEBP", lossless=True, duration=50)),
        (
            "zip",
            archives.packed([(f"scan {n + 8}.png", encoded(grey(level), "PNG")) for n, level in enumerate(LEVELS)]),
        ),
    ],
)
def test_every_picture_is_a_page_in_order(pool: MediaPool, web: str, name: str, body: bytes) -> None:
    BODIES[name] = body
    found = probe(pool, f"{web}/{name}")
    assert found == DocumentProbe(name, (PageSize(60, 40),) * 5)  # type: ignore[arg-type]
    assert not found.in_points
    for number in (3, 1, 2, 5, 4):
        assert abs(level_of(page(pool, f"{web}/{name}", number)) - LEVELS[number - 1]) <= 3


def test_a_plain_picture_is_a_document_of_one_page(pool: MediaPool, web: str) -> None:
    picture = Image.effect_noise((500, 300), 60).convert("RGB")
    BODIES["jpeg"] = encoded(picture, "JPEG")
    assert probe(pool, f"{web}/jpeg") == DocumentProbe("picture", (PageSize(500, 300),))
    there = page(pool, f"{web}/jpeg").image
    here = tile_image(Image.open(io.BytesIO(BODIES["jpeg"])), side=SIDE, max_partition=PARTITION)
    assert all(np.array_equal(a, b) for a, b in zip(there.tiles, here.tiles, strict=True))


def test_pages_of_a_zip_come_in_natural_order_of_names_with_all_their_frames(pool: MediaPool, web: str) -> None:
    two = encoded(grey(110), "TIFF", save_all=True, append_images=[grey(160)])
    members = [
        ("b/page 10.png", encoded(grey(210), "PNG")),
        ("b/Page 2.tif", two),
        ("A/cover.png", encoded(grey(10, (30, 90)), "PNG")),
        ("b/page 1.jpg", encoded(grey(60), "JPEG")),
        ("__MACOSX/b/._page 1.jpg", b"resource fork"),
        ("notes.txt", b"not a page"),
    ]
    BODIES["mixed"] = archives.packed(members)
    assert probe(pool, f"{web}/mixed").pages == (PageSize(30, 90), *(PageSize(60, 40),) * 4)
    levels = [level_of(page(pool, f"{web}/mixed", number)) for number in range(1, 6)]
    assert [round(level, -1) for level in levels] == LEVELS


def test_members_of_one_name_are_pages_of_their_own(pool: MediaPool, web: str) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        BODIES["twins"] = archives.packed([("scan.png", encoded(grey(level), "PNG")) for level in (10, 110, 210)])
    assert [level_of(page(pool, f"{web}/twins", number)) for number in (1, 2, 3, 2, 1)] == [10, 110, 210, 110, 10]


def test_a_damaged_page_fails_alone(pool: MediaPool, web: str) -> None:
    good = encoded(Image.effect_noise((90, 90), 60), "PNG")
    BODIES["cripple"] = archives.packed(
        [("1.png", good), ("2.png", good[:400]), ("3.png", b"nothing"), ("4.png", good)]
    )
    assert [size.width for size in probe(pool, f"{web}/cripple").pages] == [90, 90, 0, 90]
    with pytest.raises(TruncatedImage):
        page(pool, f"{web}/cripple", 2)
    with pytest.raises(NotADocument):
        page(pool, f"{web}/cripple", 3)
    page(pool, f"{web}/cripple", 4)


def test_a_gif_with_a_canvas_beyond_the_limit_is_refused_and_fails_alone_in_a_zip(pool: MediaPool, web: str) -> None:
    large = gif(10_001, 10_000, [(1, 1)] * 3)
    BODIES["large.gif"] = large
    with pytest.raises(LimitExceeded, match="10001 x 10000"):
        probe(pool, f"{web}/large.gif")
    BODIES["large.zip"] = archives.packed([("1.gif", large), ("2.png", encoded(grey(110), "PNG"))])
    assert [size.width for size in probe(pool, f"{web}/large.zip").pages] == [0, 60]
    with pytest.raises(LimitExceeded, match="10001 x 10000"):
        page(pool, f"{web}/large.zip", 1)
    assert level_of(page(pool, f"{web}/large.zip", 2)) == 110


def test_a_pdf_is_probed_in_points_and_rendered_to_its_grid(pool: MediaPool, web: str) -> None:
    BODIES["a4"] = pdfs.written([["first page"], ["second page"]])
    assert probe(pool, f"{web}/a4") == DocumentProbe("pdf", (PageSize(595, 842),) * 2)
    image = page(pool, f"{web}/a4", 2).image
    assert choose_grid(image.width, image.height, side=SIDE, max_partition=PARTITION) == (image.rows, image.cols)
    assert image.width <= image.cols * SIDE
    assert image.height <= image.rows * SIDE
    assert max(image.width / (image.cols * SIDE), image.height / (image.rows * SIDE)) > 0.99


def test_a_small_pdf_page_is_not_blown_up(pool: MediaPool, web: str) -> None:
    BODIES["label"] = pdfs.written([["label"]], size=(72, 36), font_size=8)
    image = page(pool, f"{web}/label").image
    assert (image.width, image.height) == (300, 150)


def test_a_rendered_page_shows_what_the_pdf_draws(pool: MediaPool, web: str) -> None:
    drawing = b"1 0 0 rg 0 0 100 100 re f 0 0 1 rg 100 100 100 100 re f"
    BODIES["squares"] = pdfs.document([drawing], size=(200, 200))
    pixels = page(pool, f"{web}/squares").image.tiles[0]
    middle, quarter = pixels.shape[0] // 2, pixels.shape[0] // 4
    assert pixels[middle + quarter, quarter].tolist() == [255, 0, 0]
    assert pixels[quarter, middle + quarter].tolist() == [0, 0, 255]
    assert pixels[quarter, quarter].tolist() == [255, 255, 255]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_page_is_turned_clockwise_after_it_was_rendered(pool: MediaPool, web: str, degrees: int) -> None:
    BODIES["tall"] = pdfs.document([b"0 g 0 80 30 40 re f"], size=(60, 120))
    upright, turned = page(pool, f"{web}/tall").image, page(pool, f"{web}/tall", rotate=degrees).image
    expected = np.rot90(upright.tiles[0], -degrees // 90)
    assert turned.tiles[0].shape == expected.shape
    assert np.abs(turned.tiles[0].astype(int) - expected).mean() < 2


def test_a_page_s_own_text_comes_in_the_files_order(pool: MediaPool, web: str) -> None:
    BODIES["text"] = pdfs.written([["Total: 12.50 EUR", "Thank you"], []])
    assert page(pool, f"{web}/text", 1, want_text=True).text == "Total: 12.50 EUR\nThank you"
    assert page(pool, f"{web}/text", 1).text is None
    assert page(pool, f"{web}/text", 2, want_text=True).text is None


def test_a_page_whose_text_suffices_is_not_rendered(pool: MediaPool, web: str) -> None:
    BODIES["mixed.pdf"] = pdfs.written([["Total: 12.50 EUR"], []])
    first, second = (page(pool, f"{web}/mixed.pdf", number, text_suffices=True) for number in (1, 2))
    assert first == Prepared(None, has_ink=True, text="Total: 12.50 EUR")
    assert (second.text, second.has_ink) == (None, False)
    assert second.image is not None


def test_a_look_tells_which_pages_have_text_of_their_own(pool: MediaPool, web: str) -> None:
    BODIES["texts"] = pdfs.written([["one"], [], ["three"], ["four"]])
    found = pool.probe(f"{web}/texts", trusted=True, look=Probe(own_text=True, pages="1-3"))
    assert isinstance(found, DocumentProbe)
    assert found.own_text == (True, False, True, None)
    assert probe(pool, f"{web}/texts").own_text is None
    BODIES["picture of text"] = BODIES["picture%20of%20text"] = encoded(grey(200), "PNG")
    found = pool.probe(f"{web}/picture%20of%20text", trusted=True, look=Probe(own_text=True))
    assert isinstance(found, DocumentProbe)
    assert found.own_text == (False,)


def test_a_look_without_time_leaves_most_pages() -> None:
    pages = PdfPages(pdfs.written([["text"]] * 9), max_pages=9)
    found = pages_with_text(pages, range(2, 10), 0.0)
    assert found.count(True) == 1
    assert found.count(None) == 8
    assert found[0] is None
    pages.close()


def test_a_picture_is_looked_at_as_one_by_wish(pool: MediaPool, web: str) -> None:
    BODIES["frames"], BODIES["no picture"] = frames_as("TIFF"), pdfs.written([["one"]])
    BODIES["no%20picture"] = BODIES["no picture"]
    look = Probe(as_picture=True)
    assert pool.probe(f"{web}/frames", trusted=True, look=look) == DocumentProbe("picture", (PageSize(60, 40),))
    with pytest.raises(NotAnImage) as looked:
        pool.probe(f"{web}/no%20picture", trusted=True, look=look)
    with pytest.raises(NotAnImage) as prepared:
        pool.prepare(f"{web}/no%20picture", trusted=True, side=SIDE, max_partition=PARTITION)
    assert str(looked.value) == str(prepared.value)


def test_a_scan_has_no_text_of_its_own(pool: MediaPool, web: str) -> None:
    paper = Image.new("L", (400, 560), 250)
    ImageDraw.Draw(paper).text((50, 50), "scanned", fill=20)
    BODIES["scan"] = pdfs.scanned(paper.tobytes(), 400, 560)
    found = page(pool, f"{web}/scan", want_text=True)
    assert found.text is None
    assert found.has_ink


def test_ink_is_told_from_blank_paper(pool: MediaPool, web: str) -> None:
    BODIES["sparse"] = pdfs.document([b"", pdfs.lines(["7"], font_size=10), b"0.97 g 200 200 200 4 re f"])
    assert [page(pool, f"{web}/sparse", number).has_ink for number in (1, 2, 3)] == [False, True, True]


@pytest.mark.parametrize("number", [0, -1, 3, 10**9])
def test_a_page_that_is_not_there_is_named(pool: MediaPool, web: str, number: int) -> None:
    BODIES["two"] = pdfs.written([["one"], ["two"]])
    with pytest.raises(PageOutOfRange, match=f"2 pages; page {number}"):
        page(pool, f"{web}/two", number)


def test_the_limit_of_pages_is_a_setting(web: str) -> None:
    pool = pool_of(media_max_pages=4)
    try:
        for name, body in {
            "five.pdf": pdfs.many_pages(5),
            "five.tif": frames_as("TIFF"),
            "five.gif": frames_as("GIF"),
        }.items():
            BODIES[name] = body
            with pytest.raises(LimitExceeded, match="4"):
                pool.probe(f"{web}/{name}", trusted=True)
    finally:
        pool.close()


CORPUS = {**PDFS, **ARCHIVES}


@pytest.mark.parametrize("name", list(CORPUS))
def test_a_hostile_document_ends_as_a_typed_error(web: str, name: str) -> None:
    build, codes = CORPUS[name]
    pool = careful_pool()
    (pid,) = pool.pids()
    BODIES["hostile"] = build()
    try:
        probe(pool, f"{web}/hostile")
        page(pool, f"{web}/hostile", want_text=True)
        code = FINE
    except FleetError as exc:
        code = exc.code
    assert code in codes
    # A process that is alive has kept its memory limit; one that is not was allowed to die of it.
    assert pool.pids() == [pid] or code in {LimitExceeded.code, MediaProcessDied.code}
    BODIES["after"] = pdfs.written([["fine"]])
    assert page(pool, f"{web}/after").has_ink


POOLS: list[MediaPool] = []


def careful_pool() -> MediaPool:
    """The pool of the corpus: little time and memory."""
    if not POOLS:
        POOLS.append(
            pool_of(media_cpu_s=3, media_memory_bytes=1 << 30, media_office_command=Path("/nonexistent/soffice"))
        )
    return POOLS[0]


@pytest.fixture(scope="module", autouse=True)
def _close_the_careful_pool() -> Iterator[None]:
    yield
    for pool in POOLS:
        pool.close()


@pytest.mark.parametrize("name", list(PICTURES))
def test_a_hostile_picture_is_no_document_either(pool: MediaPool, web: str, name: str) -> None:
    BODIES["hostile"] = PICTURES[name][0]()
    try:
        probe(pool, f"{web}/hostile")
        page(pool, f"{web}/hostile")
    except FleetError as exc:
        assert exc.code in {"not_a_document", "damaged_document", "truncated_image", "limit_exceeded", "not_a_video"}  # noqa: PT017


def test_pages_of_one_document_are_fetched_once(web: str) -> None:
    pool = pool_of()
    try:
        BODIES["long"] = pdfs.written([[f"page {number}"] for number in range(1, 41)])
        SENT.clear()
        probe(pool, f"{web}/long?signature=0")
        for number in range(1, 41):
            text = page(pool, f"{web}/long?signature={number}", number, want_text=True).text
            assert text == f"page {number}"
        assert SENT["long"] == 1
    finally:
        pool.close()


def test_a_document_that_changed_or_is_gone_is_not_kept(pool: MediaPool, web: str) -> None:
    BODIES["changing"] = pdfs.written([["before"]])
    assert page(pool, f"{web}/changing", want_text=True).text == "before"
    BODIES["changing"] = pdfs.written([["after"]])
    assert page(pool, f"{web}/changing", want_text=True).text == "after"
    del BODIES["changing"]
    with pytest.raises(FleetError, match="404"):
        page(pool, f"{web}/changing")


def test_without_a_tag_or_a_cache_every_page_is_fetched(pool: MediaPool, web: str) -> None:
    SENT.clear()
    BODIES["untagged"] = BODIES["tagged"] = pdfs.written([["one"], ["two"]])
    for number in (1, 2):
        page(pool, f"{web}/untagged", number)
    assert SENT["untagged"] == 2
    without = pool_of(media_cache_bytes=0)
    try:
        for number in (1, 2):
            page(without, f"{web}/tagged", number)
        assert SENT["tagged"] == 2
    finally:
        without.close()


def test_callers_urls_that_differ_in_their_query_are_different_inputs(web: str) -> None:
    pool = pool_of(egress_allow_http=True, egress_allow_cidrs="127.0.0.0/8")
    try:
        SENT.clear()
        BODIES["asked"] = pdfs.written([["one"]])
        for query in ("id=1", "id=2"):
            pool.prepare(f"{web}/asked?{query}", trusted=False, side=SIDE, max_partition=1, page=1)
        assert SENT["asked"] == 2
    finally:
        pool.close()


@pytest.mark.parametrize("name", ["docx", "ole"])
def test_office_files_say_that_libreoffice_is_missing(web: str, name: str) -> None:
    pool = careful_pool()
    BODIES[name] = ARCHIVES["office file" if name == "docx" else "old office file"][0]()
    with pytest.raises(OfficeUnavailable, match="LibreOffice"):
        pool.probe(f"{web}/{name}", trusted=True)


def office_program(folder: Path, script: str) -> Path:
    """A program that takes LibreOffice's arguments; for the real one see test_media_office.py."""
    program = folder / "soffice"
    program.write_text(f'#!/bin/sh\nfor last; do :; done\nout=$(dirname "$last")\n{script}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_office_files_become_pages_through_the_program(tmp_path: Path, web: str) -> None:
    (tmp_path / "made.pdf").write_bytes(pdfs.written([["from office"], ["second"]]))
    program = office_program(
        tmp_path, f'grep -q word/document "$last" && env > {tmp_path}/env; cp {tmp_path}/made.pdf $out/input.pdf'
    )
    pool = pool_of(media_office_command=program)
    try:
        BODIES["docx"] = ARCHIVES["office file"][0]()
        assert probe(pool, f"{web}/docx") == DocumentProbe("office", (PageSize(595, 842),) * 2)
        assert page(pool, f"{web}/docx", 1, want_text=True).text == "from office"
    finally:
        pool.close()


@pytest.mark.timeout(30)
def test_an_office_program_dies_with_its_media_process(tmp_path: Path, web: str) -> None:
    started = tmp_path / "pid"
    os.mkfifo(started)
    pool = pool_of(media_office_command=office_program(tmp_path, f"echo $$ > {started}; exec sleep 60"))
    try:
        BODIES["docx"] = ARCHIVES["office file"][0]()
        failed: list[BaseException] = []

        def look() -> None:
            try:
                pool.probe(f"{web}/docx", trusted=True)
            except FleetError as exc:
                failed.append(exc)

        looking = threading.Thread(target=look)
        looking.start()
        office = int(started.read_text())
        os.kill(pool.pids()[0], signal.SIGKILL)
        looking.join(30)
        assert isinstance(failed[0], MediaProcessDied)
    finally:
        pool.close()
    status = Path(f"/proc/{office}/stat")
    assert not status.exists() or status.read_text().split()[2] in "ZX"


def test_an_office_file_that_gives_no_pages_is_damaged(tmp_path: Path, web: str) -> None:
    pool = pool_of(media_office_command=office_program(tmp_path, "exit 0"))
    try:
        BODIES["docx"] = ARCHIVES["office file"][0]()
        with pytest.raises(DamagedDocument, match="LibreOffice"):
            pool.probe(f"{web}/docx", trusted=True)
    finally:
        pool.close()
