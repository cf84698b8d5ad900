"""Media processes: real ones, fed with pictures that are fine and pictures that are not."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contract.errors import (
    FleetError,
    InputUnavailable,
    LimitExceeded,
    MediaProcessDied,
    NotAnImage,
    TruncatedImage,
    UrlNotAllowed,
)
from ovis_engine.tiling import tile_image
from tests.corpus.pictures import PICTURES
from tests.workers.media_web import BODIES, serving
from workers.media.pool import MediaPool
from workers.settings import WorkerSettings

ROOT = Path(__file__).parent.parent.parent
RECEIPT = (ROOT / "examples" / "receipt.png").read_bytes()


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def deaths() -> list[str]:
    return []


def settings(**changes: object) -> WorkerSettings:
    return WorkerSettings(**{"media_processes": 1, **changes})  # type: ignore[arg-type]


@pytest.fixture
def pool(deaths: list[str]) -> Iterator[MediaPool]:
    pool = MediaPool(settings(media_max_input_bytes=4 << 20), on_death=deaths.append)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def steady_pool() -> Iterator[MediaPool]:
    """One process for many inputs: none of them may cost it its life."""
    pool = MediaPool(settings(media_max_input_bytes=4 << 20), on_death=lambda _: None)
    (pid,) = pool.pids()
    yield pool
    assert pool.pids() == [pid]
    pool.close()


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header promises more than its few bytes of data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def peak_bytes(pid: int) -> int:
    """Most memory that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def prepare(pool: MediaPool, url: str, *, trusted: bool = True) -> object:
    return pool.prepare(url, trusted=trusted, side=336, max_partition=4)


def test_tiles_from_a_media_process_equal_those_made_here(pool: MediaPool, web: str) -> None:
    BODIES["receipt"] = RECEIPT
    there = pool.prepare(f"{web}/receipt", trusted=True, side=336, max_partition=4).image
    here = tile_image(Image.open(io.BytesIO(RECEIPT)), side=336, max_partition=4)
    assert (there.rows, there.cols, there.width, there.height) == (here.rows, here.cols, here.width, here.height)
    assert len(there.tiles) == len(here.tiles)
    assert all(np.array_equal(a, b) for a, b in zip(there.tiles, here.tiles, strict=True))


@pytest.mark.parametrize(
    ("name", "body", "error"),
    [
        ("text", b"Dear Sir or Madam", NotAnImage),
        ("empty", b"", NotAnImage),
        ("svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', NotAnImage),
        ("truncated_jpeg", encoded(Image.effect_noise((300, 300), 90), "JPEG")[:9000], TruncatedImage),
        ("truncated_png", RECEIPT[: len(RECEIPT) // 2], TruncatedImage),
        ("bomb", encoded(Image.new("1", (20_000, 20_000))), LimitExceeded),
        ("lying_header", png_claiming(9_000, 9_000), TruncatedImage),
        ("huge_claim", png_claiming(2**30, 2**30), LimitExceeded),
        ("too_many_bytes", b"\0" * (5 << 20), LimitExceeded),
    ],
)
def test_what_only_decoding_can_tell_is_a_typed_error(
    steady_pool: MediaPool, web: str, name: str, body: bytes, error: type[FleetError]
) -> None:
    BODIES[name] = body
    with pytest.raises(error):
        prepare(steady_pool, f"{web}/{name}")
    BODIES["receipt"] = RECEIPT
    prepare(steady_pool, f"{web}/receipt")


@pytest.mark.parametrize("name", PICTURES)
def test_every_hostile_picture_ends_as_a_typed_error_or_harmlessly(steady_pool: MediaPool, web: str, name: str) -> None:
    make, may_end_as = PICTURES[name]
    BODIES["hostile"] = make()
    (pid,) = steady_pool.pids()
    try:
        prepare(steady_pool, f"{web}/hostile")
        ended_as = "fine"
    except FleetError as exc:
        ended_as = exc.code
    assert ended_as in may_end_as
    assert peak_bytes(pid) < 1 << 30


def test_an_endless_body_ends_at_the_limit(pool: MediaPool, web: str) -> None:
    with pytest.raises(LimitExceeded, match="4194304 bytes"):
        prepare(pool, f"{web}/endless")


def test_a_missing_input_is_the_callers_fault(pool: MediaPool, web: str) -> None:
    with pytest.raises(InputUnavailable, match="404"):
        prepare(pool, f"{web}/nothing")


@pytest.mark.parametrize("url", ["https://localhost/x", "https://169.254.169.254/", "http://example.com/"])
def test_a_callers_url_meets_the_policy_again(pool: MediaPool, url: str) -> None:
    with pytest.raises(UrlNotAllowed):
        prepare(pool, url, trusted=False)


def test_a_redirect_to_a_forbidden_address_is_not_followed(web: str) -> None:
    allowed = settings(egress_allow_http=True, egress_allow_cidrs="127.0.0.0/8")
    pool = MediaPool(allowed, on_death=lambda _: None)
    try:
        BODIES["receipt"] = RECEIPT
        prepare(pool, f"{web}/to/{web}/receipt", trusted=False)
        for target in ("http://169.254.169.254/latest", "file:///etc/passwd", "http://[::1]:1/"):
            with pytest.raises(UrlNotAllowed):
                prepare(pool, f"{web}/to/{target}", trusted=False)
        with pytest.raises(InputUnavailable, match="redirects"):
            prepare(pool, f"{web}/to/{web}/to/{web}/to/{web}/to/{web}/receipt", trusted=False)
    finally:
        pool.close()


def test_a_media_process_that_is_killed_at_work_costs_one_job(pool: MediaPool, web: str, deaths: list[str]) -> None:
    (before,) = pool.pids()
    killer = threading.Timer(0.3, os.kill, (before, signal.SIGKILL))
    killer.start()
    with pytest.raises(MediaProcessDied):
        prepare(pool, f"{web}/silent")
    BODIES["receipt"] = RECEIPT
    prepare(pool, f"{web}/receipt")
    assert deaths == ["crash"]
    assert pool.pids() != [before]


def test_a_media_process_that_dies_idle_costs_nothing(pool: MediaPool, web: str, deaths: list[str]) -> None:
    (before,) = pool.pids()
    os.kill(before, signal.SIGKILL)
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
    BODIES["receipt"] = RECEIPT
    prepare(pool, f"{web}/receipt")
    assert deaths == ["idle"]
    assert pool.pids() != [before]


def test_a_media_process_that_hangs_is_killed(web: str, deaths: list[str]) -> None:
    pool = MediaPool(settings(media_timeout_s=0.2), on_death=deaths.append)
    try:
        os.kill(pool.pids()[0], signal.SIGSTOP)
        with pytest.raises(LimitExceeded, match="seconds"):
            prepare(pool, f"{web}/receipt")
        assert deaths == ["timeout"]
    finally:
        pool.close()


def test_who_wants_no_answer_any_more_waits_neither_for_a_process_nor_in_it(pool: MediaPool, deaths: list[str]) -> None:
    """Given one process that waits for a silent server, and two callers behind it."""
    unwanted = threading.Event()
    outcomes: list[str] = []

    class NotWantedError(Exception):
        pass

    def go_on() -> None:
        if unwanted.is_set():
            raise NotWantedError

    def ask(url: str) -> None:
        try:
            prepare(pool.asking(go_on), url)
        except NotWantedError:
            outcomes.append("given up")
        except FleetError as exc:
            outcomes.append(exc.code)

    (pid,) = pool.pids()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/page"
        callers = [threading.Thread(target=ask, args=(url,)) for _ in range(3)]
        for caller in callers:
            caller.start()
        connection, _ = silent.accept()
        with connection:
            unwanted.set()
            for caller in callers:
                caller.join(15)  # the process itself would wait for 60 s
            assert outcomes == ["given up"] * 3
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert pool.pids() != [pid], "nobody waits for the server any more"
    assert deaths == []
    with serving() as web:
        BODIES["receipt"] = RECEIPT
        prepare(pool, f"{web}/receipt")


def test_a_process_that_falls_silent_in_its_answer_is_ended(deaths: list[str]) -> None:
    pool = MediaPool(settings(media_timeout_s=0.5), on_death=deaths.append)
    (child,) = pool._children
    real = child.connection  # it ends without this
    child.connection, theirs = Pipe()
    shape = {"rows": 1, "cols": 1, "width": 9, "height": 9, "side": 336, "tiles": [[9, 9]]}

    def begin_to_answer() -> None:
        theirs.recv_bytes()
        theirs.send_bytes(json.dumps({"ok": True, "images": [shape], "has_ink": True, "text_bytes": None}).encode())
        child.process.wait()
        theirs.close()

    threading.Thread(target=begin_to_answer, daemon=True).start()
    try:
        with pytest.raises(LimitExceeded, match=r"0\.5 seconds"):
            prepare(pool, "http://127.0.0.1:9/never-asked")
        assert deaths == ["timeout"]
        assert child.process.returncode is not None
        assert len(pool.pids()) == 1
    finally:
        pool.close()
        real.close()


def test_memory_is_limited(web: str) -> None:
    pool = MediaPool(settings(media_memory_bytes=512 << 20, media_max_pixels=10**9), on_death=lambda _: None)
    try:
        BODIES["bomb"] = encoded(Image.new("1", (20_000, 20_000)))
        with pytest.raises(LimitExceeded, match="memory"):
            prepare(pool, f"{web}/bomb")
    finally:
        pool.close()


def test_a_media_process_is_replaced_after_its_jobs(web: str) -> None:
    pool = MediaPool(settings(media_jobs_per_process=2), on_death=lambda _: None)
    try:
        BODIES["receipt"] = RECEIPT
        (first,) = pool.pids()
        prepare(pool, f"{web}/receipt")
        assert pool.pids() == [first]
        prepare(pool, f"{web}/receipt")
        assert pool.pids() != [first]
    finally:
        pool.close()


def test_a_media_process_holds_no_credentials_and_no_model_library(monkeypatch: pytest.MonkeyPatch, web: str) -> None:
    monkeypatch.setenv("OVIS_S3_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    pool = MediaPool(settings(), on_death=lambda _: None)
    try:
        BODIES["receipt"] = RECEIPT
        prepare(pool, f"{web}/receipt")
        (pid,) = pool.pids()
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"hunter2" not in environment
        assert b"OVIS_" not in environment
        mapped = Path(f"/proc/{pid}/maps").read_text()
        assert "libtorch" not in mapped
    finally:
        pool.close()


def test_closing_leaves_no_process() -> None:
    pool = MediaPool(settings(media_processes=2), on_death=lambda _: None)
    pids = pool.pids()
    pool.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
