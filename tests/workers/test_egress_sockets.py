"""The egress guard against tricks, on real sockets: whatever the URL, nobody inside is ever connected to.

``127.0.0.1`` plays the inside; ``127.0.0.2``, which the operator of these tests allows, plays the public network.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from typing import Any
from urllib.parse import quote, unquote

import pytest

from contract.egress import EgressPolicy
from contract.errors import InputUnavailable, LimitExceeded, UrlNotAllowed
from workers.media.fetch import fetch

INSIDE, OUTSIDE = "127.0.0.1", "127.0.0.2"


class Server(ThreadingHTTPServer):
    """Counts connections; ``/to?URL`` redirects to URL."""

    daemon_threads = True

    def __init__(self, host: str, port: int = 0) -> None:
        self.connections = 0
        super().__init__((host, port), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def get_request(self) -> tuple[socket.socket, Any]:
        self.connections += 1
        return super().get_request()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path, _, target = self.path.partition("?")
        if path == "/slow":
            self.drip()
            return
        self.send_response(302 if path == "/to" else 200)
        if path == "/to":
            self.send_header("Location", unquote(target))
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"here")

    def drip(self) -> None:
        """A header that never ends, in steps that are each in time."""
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not self.server.ended.wait(0.05):  # type: ignore[attr-defined]
                self.wfile.write(b"x")
        except OSError:
            pass

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def inside() -> Iterator[Server]:
    with Server(INSIDE) as server:
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def outside(inside: Server) -> Iterator[Server]:
    """On the same port as the one inside, so that a name that moves would find a server there."""
    with Server(OUTSIDE, inside.server_address[1]) as server:
        server.ended = threading.Event()  # type: ignore[attr-defined]
        yield server
        server.ended.set()  # type: ignore[attr-defined]
        server.shutdown()


def names(**answers: list[str]) -> Callable[..., list[Any]]:
    """A DNS whose answers change: each look-up takes the next, the last one stays."""
    asked: dict[str, int] = {}

    def lookup(host: str, port: int, **_kind: Any) -> list[Any]:
        known = answers.get(host.removesuffix(".").split(".")[0])
        if known is None:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        number = asked[host] = asked.get(host, 0) + 1
        answer = known[min(number, len(known)) - 1]
        return [
            (socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port))
            for a in answer.split(",")
        ]

    return lookup


def policy(**answers: list[str]) -> EgressPolicy:
    return EgressPolicy(allow_http=True, allow_networks=(ip_network(f"{OUTSIDE}/32"),), lookup=names(**answers))


def get(url: str, rule: EgressPolicy, timeout_s: float = 5) -> bytes | None:
    return fetch(url, policy=rule, max_bytes=1000, timeout_s=timeout_s).body


#: Every spelling of somebody inside; PORT is where a server really listens.
TRICKS = {
    "dotted": "http://127.0.0.1:PORT/",
    "short": "http://127.1:PORT/",
    "decimal": "http://2130706433:PORT/",
    "hexadecimal": "http://0x7f000001:PORT/",
    "mixed": "http://0x7f.0.1:PORT/",
    "octal": "http://0177.0.0.1:PORT/",
    "octal in one": "http://017700000001:PORT/",
    "padded": "http://127.000.000.001:PORT/",
    "trailing dot": "http://127.0.0.1.:PORT/",
    "unspecified": "http://0.0.0.0:PORT/",
    "zero": "http://0:PORT/",
    "loopback elsewhere": "http://127.9.9.9:PORT/",
    "localhost": "http://localhost:PORT/",
    "localhost with a dot": "http://LocalHost.:PORT/",
    "below localhost": "http://a.localhost:PORT/",
    "v6 loopback": "http://[::1]:PORT/",
    "v6 unspecified": "http://[::]:PORT/",
    "v6 mapped": "http://[::ffff:127.0.0.1]:PORT/",
    "v6 mapped in hex": "http://[::ffff:7f00:1]:PORT/",
    "v6 compatible": "http://[::127.0.0.1]:PORT/",
    "nat64": "http://[64:ff9b::7f00:1]:PORT/",
    "local nat64": "http://[64:ff9b:1::7f00:1]:PORT/",
    "6to4": "http://[2002:7f00:1::]:PORT/",
    "teredo": "http://[2001:0:7f00:1::]:PORT/",
    "link-local": "http://169.254.169.254:PORT/",
    "v6 link-local with a zone": "http://[fe80::1%25lo]:PORT/",
    "cgnat": "http://100.64.0.1:PORT/",
    "private": "http://10.0.0.1:PORT/",
    "broadcast": "http://255.255.255.255:PORT/",
    "multicast": "http://224.0.0.1:PORT/",
    "credentials": "http://public@127.0.0.1:PORT/",
    "name as credentials": "http://public.example:PORT@127.0.0.1:PORT/",
    "backslash": "http://public.example:PORT\\@127.0.0.1:PORT/",
    "fragment and credentials": "http://127.0.0.1:PORT#@public.example/",
    "full-width digits": "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11:PORT/",
    "circled letters": "http://ⓛocalhost:PORT/",
    "ideographic full stop": "http://127。0。0。1:PORT/",
    "escaped host": "http://127%2e0%2e0%2e1:PORT/",
    "tab in the host": "http://127.0.\t0.1:PORT/",
    "overlong host": f"http://{'a.' * 130}localhost:PORT/",
    "wildcard name": "http://wildcard.127.0.0.1.dns.example:PORT/",
    "wildcard name to the metadata service": "http://metadata.dns.example:PORT/",
    "name with one address inside": "http://both.example:PORT/",
    "name with a mapped address": "http://mapped.example:PORT/",
    "name with a zone": "http://zone.example:PORT/",
    "name with a trailing dot": "http://wildcard.example.:PORT/",
}
ANSWERS = {
    "public": [OUTSIDE],
    "wildcard": [INSIDE],
    "metadata": ["169.254.169.254"],
    "both": [f"{OUTSIDE},{INSIDE}"],
    "mapped": ["::ffff:127.0.0.1"],
    "zone": ["fe80::1%lo"],
}


@pytest.mark.parametrize("trick", TRICKS)
def test_no_spelling_reaches_the_inside(inside: Server, outside: Server, trick: str) -> None:
    before = inside.connections
    with pytest.raises((UrlNotAllowed, InputUnavailable)):
        get(TRICKS[trick].replace("PORT", str(inside.server_address[1])), policy(**ANSWERS))
    assert inside.connections == before


@pytest.mark.parametrize("trick", TRICKS)
def test_no_redirect_leads_to_the_inside(inside: Server, outside: Server, trick: str) -> None:
    port = inside.server_address[1]
    # http.server writes headers as latin-1: this way the bytes of UTF-8 arrive.
    target = quote(TRICKS[trick].replace("PORT", str(port)).encode().decode("latin-1"))
    before = inside.connections, outside.connections
    with pytest.raises((UrlNotAllowed, InputUnavailable)):
        get(f"http://{OUTSIDE}:{port}/to?{target}", policy(**ANSWERS))
    assert (inside.connections, outside.connections) == (before[0], before[1] + 1)


def test_the_public_server_is_reached_and_may_redirect_to_itself(outside: Server) -> None:
    port = outside.server_address[1]
    assert get(f"http://public.example:{port}/to?/x", policy(**ANSWERS)) == b"here"


def test_a_name_that_moves_inside_after_the_check_is_not_followed(inside: Server, outside: Server) -> None:
    rule = policy(moving=[OUTSIDE, INSIDE])
    url = f"http://moving.example:{outside.server_address[1]}/"
    before = inside.connections
    assert get(url, rule) == b"here"
    with pytest.raises(UrlNotAllowed):
        get(url, rule)
    assert inside.connections == before


def test_a_redirect_to_a_name_that_has_moved_inside_is_not_followed(inside: Server, outside: Server) -> None:
    port = outside.server_address[1]
    rule = policy(moving=[OUTSIDE, INSIDE])
    assert get(f"http://moving.example:{port}/", rule) == b"here"
    before = inside.connections
    with pytest.raises(UrlNotAllowed):
        get(f"http://{OUTSIDE}:{port}/to?http://moving.example:{port}/", rule)
    assert inside.connections == before


def test_a_url_beyond_ascii_is_fetched_as_its_escaped_form(outside: Server) -> None:
    port = outside.server_address[1]
    target = quote("/b\u00fccher/\u4e66".encode().decode("latin-1"))
    assert get(f"http://public.example:{port}/to?{target}", policy(**ANSWERS)) == b"here"
    assert get(f"http://public.example:{port}/b\u00fccher/\u4e66", policy(**ANSWERS)) == b"here"


def test_proxies_from_the_environment_are_not_used(
    inside: Server, outside: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{INSIDE}:{inside.server_address[1]}")
    before = inside.connections
    assert get(f"http://public.example:{outside.server_address[1]}/", policy(**ANSWERS)) == b"here"
    assert inside.connections == before


def test_a_server_that_feeds_its_header_slowly_ends_at_the_deadline(outside: Server) -> None:
    with pytest.raises(LimitExceeded, match=r"more than 0\.3 seconds"):
        get(f"http://public.example:{outside.server_address[1]}/slow", policy(**ANSWERS), timeout_s=0.3)


def test_redirects_without_end_are_given_up(outside: Server) -> None:
    port = outside.server_address[1]
    url = f"http://{OUTSIDE}:{port}/to?" + f"http://{OUTSIDE}:{port}/to?" * 5
    with pytest.raises(InputUnavailable, match="more than 3 redirects"):
        get(url, policy())
