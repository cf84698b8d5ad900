"""Which URLs of callers may be reached: the policy, without the fetching.

A URL's host is resolved once and every address must pass; the connection then goes to an address that was checked,
so that a second DNS answer can't redirect it (``workers.guarded`` connects). Redirects are checked again by whoever
follows them. Inputs and webhooks share this one policy.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any
from urllib.parse import urlsplit

from contract.errors import InputUnavailable, UrlNotAllowed

Address = IPv4Address | IPv6Address

#: Redirects that a fetch follows; each target is checked again.
MAX_REDIRECTS = 3

#: Ports below this belong to other services (mail, shells, names): only those of HTTP are reached there.
_FIRST_FREE_PORT = 1024
_WEB_PORTS = frozenset({80, 443})

#: Longest name that DNS knows, and longest label of one, in characters.
_MAX_HOST_CHARS = 253
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")

#: What parsers disagree on: one may see another host behind these than the next.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\]")

#: All of global unicast IPv6. Outside it lie NAT64, addresses that wrap an IPv4 one, and everything local.
_GLOBAL_V6 = IPv6Network("2000::/3")

#: Public by the registry, and yet not a stranger's: relays of 6to4, and the host agent of a large cloud.
_SPECIAL_V4 = (IPv4Network("192.88.99.0/24"), IPv4Network("168.63.129.16/32"))

#: The second block of addresses kept for documentation, younger than this Python's table.
_SPECIAL_V6 = (IPv6Network("3fff::/20"),)


@dataclass(frozen=True)
class EgressPolicy:
    """What callers' URLs may reach.

    Attributes:
        allow_http: Plain http as well as https.
        allow_networks: Networks that are allowed although they are not global unicast.
        lookup: Resolves a name, as ``socket.getaddrinfo`` does.
    """

    allow_http: bool = False
    allow_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    lookup: Callable[..., list[Any]] = socket.getaddrinfo

    def check_url(self, url: str) -> str:
        """Check everything that needs no DNS and return the host.

        Raises:
            UrlNotAllowed: Scheme, port, credentials in the URL, no host or a malformed one, or a literal address
                that isn't allowed.
        """
        if _AMBIGUOUS.search(url):
            raise UrlNotAllowed("the URL holds a space, a control character or a backslash; escape it")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as exc:
            raise UrlNotAllowed("the URL can't be parsed") from exc
        allowed = ("https", "http") if self.allow_http else ("https",)
        if parts.scheme not in allowed:
            raise UrlNotAllowed(f"the URL's scheme is {parts.scheme[:32]!r}; allowed: {', '.join(allowed)}")
        if parts.username is not None or parts.password is not None:
            raise UrlNotAllowed("the URL carries credentials")
        if not host:
            raise UrlNotAllowed("the URL has no host")
        if port is not None and port not in _WEB_PORTS and port < _FIRST_FREE_PORT:
            raise UrlNotAllowed(f"the URL's port is {port}; allowed: 80, 443 and {_FIRST_FREE_PORT} to 65535")
        self._check_host(host)
        return host

    def _check_host(self, host: str) -> None:
        literal = _literal_address(host)
        if literal is not None:
            self.check_address(literal)
            return
        if not host.isascii():
            raise UrlNotAllowed("the URL's host isn't ASCII; write its xn-- form")
        name = host.removesuffix(".")
        if len(name) > _MAX_HOST_CHARS or not all(_LABEL.fullmatch(label) for label in name.split(".")):
            raise UrlNotAllowed(
                f"the URL's host isn't a name: labels of 1 to 63 letters, digits, - and _, {_MAX_HOST_CHARS} in all"
            )
        if _is_local_name(name):
            self.check_address(IPv4Address("127.0.0.1"))

    def check_address(self, address: Address) -> None:
        """Check one address.

        Raises:
            UrlNotAllowed: It is private, loopback, link-local, multicast or otherwise not global unicast.
        """
        plain = address.ipv4_mapped if isinstance(address, IPv6Address) and address.ipv4_mapped else address
        if any(plain.version == network.version and plain in network for network in self.allow_networks):
            return
        if not _is_public(plain):
            raise UrlNotAllowed("the URL's host has an address that is not public")

    def resolve(self, host: str, port: int) -> list[Address]:
        """Resolve ``host`` once and check every address behind it.

        Raises:
            UrlNotAllowed: One of the addresses isn't allowed.
            InputUnavailable: The name doesn't resolve.
        """
        try:
            found = self.lookup(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise InputUnavailable("the URL's host doesn't resolve") from exc
        addresses = list(dict.fromkeys(ipaddress.ip_address(str(info[4][0]).split("%")[0]) for info in found))
        for address in addresses:
            self.check_address(address)
        return addresses


def _is_public(address: Address) -> bool:
    """Whether the address is global unicast, and hides no other one."""
    if not address.is_global or address.is_multicast:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    hides = address.sixtofour is not None or address.teredo is not None
    return address in _GLOBAL_V6 and not hides and not any(address in network for network in _SPECIAL_V6)


def _literal_address(host: str) -> Address | None:
    """The address that ``host`` spells, in any form that a resolver would take (``127.1``, ``0x7f000001``)."""
    try:
        return ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        pass
    bare = host.removesuffix(".")
    if not bare or not all(c in "0123456789abcdefx." for c in bare.lower()) or not bare[0].isdigit():
        return None
    try:
        return IPv4Address(socket.inet_aton(bare))
    except OSError:
        return None


def _is_local_name(name: str) -> bool:
    lower = name.lower()
    return lower == "localhost" or lower.endswith((".localhost", ".local", ".internal", ".localdomain"))
