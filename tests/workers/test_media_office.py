"""Office files through the LibreOffice that is installed here: real files, real limits."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from PIL import Image

from contract.errors import DamagedDocument, FleetError, LimitExceeded, MediaProcessDied
from tests.corpus import office
from tests.corpus.pictures import encoded
from tests.workers.media_web import BODIES, SENT, serving
from workers.media.answers import DocumentProbe, Prepared
from workers.media.pool import MediaPool
from workers.settings import WorkerSettings

#: Takes LibreOffice some seconds.
SLOW = office.docx(["words " * 1000] * 300)

needs_libreoffice = pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice is not installed")


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture(scope="module", autouse=True)
def _place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder of our own for temporary files: other programs may convert at the same time."""
    place, before = tmp_path_factory.mktemp("place"), tempfile.tempdir
    tempfile.tempdir = str(place)
    yield
    tempfile.tempdir = before


def pool_of(**changes: object) -> MediaPool:
    return MediaPool(WorkerSettings(**changes), on_death=lambda _: None)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pool(_place: None) -> Iterator[MediaPool]:
    """A process that nothing here may cost its life."""
    pool = pool_of(media_processes=1)
    pids = pool.pids()
    yield pool
    assert pool.pids() == pids
    pool.close()


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    """No program and no file of a conversion outlives it."""
    before = leftovers()
    yield
    ends = time.monotonic() + 10
    while left := leftovers() - before:  # what was killed takes a moment to be gone
        assert time.monotonic() < ends, left


def leftovers() -> set[str]:
    """Folders of conversions, sockets in which nobody listens, and LibreOffice's processes of this program."""
    found = {str(place) for place in Path(tempfile.gettempdir()).glob("ovis-office-*")}
    found |= {str(place) for place in Path("/tmp").glob("OSL_PIPE_*") if not _listens(place)}
    for one in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(one.info["cmdline"] or ())
        if f"file://{tempfile.gettempdir()}/ovis-office-" in line and one.info["status"] != psutil.STATUS_ZOMBIE:
            found.add(line)
    return found


def _listens(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(place)) == 0


def read(pool: MediaPool, url: str, page: int = 1) -> Prepared:
    return pool.prepare(url, trusted=True, side=336, max_partition=4, page=page, want_text=True)


@needs_libreoffice
@pytest.mark.parametrize(
    ("kind", "make", "pages"),
    [
        ("docx", lambda: office.docx(["first words", "second words"]), ["first words", "second words"]),
        ("xlsx", lambda: office.xlsx(["a cell"], formula='"4" & 2'), ["a cell\n42"]),
        ("pptx", lambda: office.pptx(["one slide", "two slides"]), ["one slide", "two slides"]),
        ("odt", lambda: office.odt("<text:p>open words</text:p>"), ["open words"]),
    ],
)
def test_office_files_are_read_page_by_page(
    pool: MediaPool, web: str, kind: str, make: Callable[[], bytes], pages: list[str]
) -> None:
    BODIES[kind] = make()

    found = pool.probe(f"{web}/{kind}", trusted=True)
    prepared = [read(pool, f"{web}/{kind}", number + 1) for number in range(len(pages))]

    assert isinstance(found, DocumentProbe)
    assert (found.format, len(found.pages)) == ("office", len(pages))
    assert [one.text for one in prepared] == pages
    assert all(one.has_ink for one in prepared)


@needs_libreoffice
def test_several_files_are_converted_at_once(web: str) -> None:
    names = ["one", "two"]
    BODIES.update({name: office.docx([name]) for name in names})
    pool = pool_of(media_processes=2)
    try:
        with ThreadPoolExecutor(2) as threads:
            assert list(threads.map(lambda name: read(pool, f"{web}/{name}").text, names)) == names
    finally:
        pool.close()


@needs_libreoffice
def test_a_file_reaches_no_other_file_and_no_network(pool: MediaPool, web: str, tmp_path: Path) -> None:
    """With LibreOffice's own settings, each of these pictures is fetched and drawn."""
    black = encoded(Image.new("RGB", (300, 300)), "PNG")
    (tmp_path / "black.png").write_bytes(black)
    BODIES["black.png"] = black
    asked = SENT["black.png"]
    BODIES["word-link"] = office.docx([""], picture_url=f"{web}/black.png")
    BODIES["open-link"] = office.odt(office.linked_picture(f"{web}/black.png"))
    BODIES["file-link"] = office.odt(office.linked_picture((tmp_path / "black.png").as_uri()))

    darkest = [
        min(int(tile.min()) for tile in read(pool, f"{web}/{name}").image.tiles)
        for name in ("word-link", "open-link", "file-link")
    ]

    assert SENT["black.png"] == asked
    assert darkest[2] > 0, "the picture on this machine was drawn"


@needs_libreoffice
def test_macros_are_not_run(pool: MediaPool, web: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    macro = f'Sub Main\n f = FreeFile\n Open "{ran}" For Output As #f\n Print #f, "x"\n Close #f\nEnd Sub'
    BODIES["macro"] = office.odt("<text:p>words</text:p>", macro=macro)

    assert read(pool, f"{web}/macro").text == "words"
    assert not ran.exists()


@needs_libreoffice
def test_a_conversion_over_its_time_ends_with_all_its_programs(web: str) -> None:
    pool = pool_of(media_processes=1, media_timeout_s=0.3)
    try:
        BODIES["slow"] = SLOW
        with pytest.raises(LimitExceeded, match=r"0\.3 seconds"):
            pool.probe(f"{web}/slow", trusted=True)
    finally:
        pool.close()


@needs_libreoffice
@pytest.mark.parametrize("limits", [{"media_cpu_s": 1}, {"media_memory_bytes": 256 << 20}], ids=["CPU", "memory"])
def test_a_conversion_over_its_other_limits_gives_no_pages(web: str, limits: dict[str, int]) -> None:
    pool = pool_of(media_processes=1, **limits)
    try:
        BODIES["slow"] = SLOW
        with pytest.raises(DamagedDocument, match="LibreOffice"):
            pool.probe(f"{web}/slow", trusted=True)
    finally:
        pool.close()


def is_converting(pid: int) -> bool:
    """Whether a process, or one that it started, has LibreOffice at work; those in between come and go."""
    for one in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if one.name() == "soffice.bin":
                return True
    return False


@needs_libreoffice
def test_a_worker_that_stops_leaves_nothing_of_a_conversion(web: str) -> None:
    pool = pool_of(media_processes=1)
    BODIES["slow"] = SLOW
    failed: list[FleetError] = []

    def look() -> None:
        try:
            pool.probe(f"{web}/slow", trusted=True)
        except FleetError as exc:
            failed.append(exc)

    looking = threading.Thread(target=look)
    looking.start()
    (pid,) = pool.pids()
    while not is_converting(pid):
        assert looking.is_alive()
    pool.close()
    looking.join()
    assert isinstance(failed[0], MediaProcessDied)
