"""What callers may do wrong: a typed answer, and nothing is kept or broken."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import redis
from PIL import Image

from contract import store
from ovis_fleet import Client
from ovis_fleet.errors import ApiError
from ovis_fleet.stack import LocalStack, StackConfig
from tests.e2e.conftest import MODEL, RECEIPT


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(b"this is no picture", "not_an_image", id="not an image"),
        pytest.param(
            encoded(Image.effect_noise((400, 400), 80), "JPEG")[:8000], "truncated_image", id="truncated JPEG"
        ),
        pytest.param(encoded(Image.new("1", (20_000, 20_000)), "PNG"), "limit_exceeded", id="pixel bomb"),
    ],
)
def test_what_only_decoding_can_tell_fails_the_task(api: Client, queue: redis.Redis, body: bytes, code: str) -> None:
    task = api.submit(body, model=MODEL, wait_s=60)
    assert task.status == "failed"
    assert task.error is not None
    assert (task.error.code, task.error.retryable, task.attempts) == (code, False, 1)
    assert api.submit(RECEIPT, model=MODEL, wait_s=60).status == "succeeded"


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/latest/meta-data", "http://localhost/x.png", "http://127.1:8333/", "http://[::1]/"],
)
def test_a_url_of_our_own_network_is_refused_at_once(api: Client, queue: redis.Redis, url: str) -> None:
    before = queue.zcard(store.index_key("default"))
    with pytest.raises(ApiError) as refused:
        api.submit(url, model=MODEL)
    assert (refused.value.status, refused.value.code) == (422, "url_not_allowed")
    assert queue.zcard(store.index_key("default")) == before


def test_a_name_that_resolves_to_our_own_network_fails_the_task(api: Client, queue: redis.Redis) -> None:
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        pytest.skip("this machine's own name doesn't resolve")
    task = api.submit(f"http://{name}/x.png", model=MODEL, wait_s=60)
    assert task.status == "failed", address
    assert task.error is not None
    assert task.error.code == "url_not_allowed"


class Redirector(BaseHTTPRequestHandler):
    """Sends every caller to the metadata service."""

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", "http://169.254.169.254/latest/meta-data")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def redirector() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Redirector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/x.png"
    server.shutdown()
    server.server_close()


def test_a_redirect_to_our_own_network_fails_the_task(redirector: str) -> None:
    leave = {"OVIS_EGRESS_ALLOW_HTTP": "true", "OVIS_EGRESS_ALLOW_CIDRS": "127.0.0.0/8"}
    with LocalStack(StackConfig(extra_env=leave)) as stack, Client(stack.url, stack.api_key) as api:
        task = api.submit(redirector, model=MODEL, wait_s=60)
        assert task.status == "failed"
        assert task.error is not None
        assert task.error.code == "url_not_allowed"


def test_a_body_of_100_mb_is_refused(fleet: LocalStack, queue: redis.Redis) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1_000_000

    before = queue.zcard(store.index_key("default"))
    headers = {"Authorization": f"Bearer {fleet.api_key}", "Content-Type": "application/json"}
    answer = httpx.post(f"{fleet.url}/v1/tasks", content=body(), headers=headers, timeout=60)
    assert answer.status_code == 413
    assert answer.json()["code"] == "too_large"
    assert queue.zcard(store.index_key("default")) == before


def test_a_wrong_key_is_401(fleet: LocalStack) -> None:
    with Client(fleet.url, "sk-wrong") as stranger, pytest.raises(ApiError) as refused:
        stranger.submit(RECEIPT, model=MODEL)
    assert (refused.value.status, refused.value.code) == (401, "unauthenticated")
