"""Which URLs of callers may be reached: the policy, without the fetching.

A URL's host is resolved once and every address must pass; the connection then goes to an address that was checked,
so that a second DNS answer can't redirect it. Redirects are checked again by whoever follows them.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import urlsplit

from contract.errors import InputUnavailable, UrlNotAllowed

Address = IPv4Address | IPv6Address

#: Redirects that a fetch follows; each target is checked again.
MAX_REDIRECTS = 3


@dataclass(frozen=True)
class EgressPolicy:
    """What callers' URLs may reach.

    Attributes:
        allow_http: Plain http as well as https.
        allow_networks: Networks that are allowed although they are not global unicast.
    """

    allow_http: bool = False
    allow_networks: tuple[IPv4Network | IPv6Network, ...] = ()

    def check_url(self, url: str) -> str:
        """Check everything that needs no DNS and return the host.

        Raises:
            UrlNotAllowed: Scheme, credentials in the URL, no host, or a literal address that isn't allowed.
        """
        try:
            parts = urlsplit(url)
            host, _port = parts.hostname, parts.port
        except ValueError as exc:
            raise UrlNotAllowed("the URL can't be parsed") from exc
        allowed = ("https", "http") if self.allow_http else ("https",)
        if parts.scheme not in allowed:
            raise UrlNotAllowed(f"the URL's scheme is {parts.scheme!r}; allowed: {', '.join(allowed)}")
        if parts.username is not None or parts.password is not None:
            raise UrlNotAllowed("the URL carries credentials")
        if not host:
            raise UrlNotAllowed("the URL has no host")
        literal = _literal_address(host)
        if literal is not None:
            self.check_address(literal)
        elif _is_local_name(host):
            self.check_address(IPv4Address("127.0.0.1"))
        return host

    def check_address(self, address: Address) -> None:
        """Check one address.

        Raises:
            UrlNotAllowed: It is private, loopback, link-local, multicast or otherwise not global unicast.
        """
        plain = address.ipv4_mapped if isinstance(address, IPv6Address) and address.ipv4_mapped else address
        if any(plain.version == network.version and plain in network for network in self.allow_networks):
            return
        hidden = isinstance(plain, IPv6Address) and (plain.sixtofour is not None or plain.teredo is not None)
        nat64 = isinstance(plain, IPv6Address) and plain in IPv6Network("64:ff9b::/96")
        if not plain.is_global or plain.is_multicast or hidden or nat64:
            raise UrlNotAllowed("the URL's host has an address that is not public")

    def resolve(self, host: str, port: int) -> list[Address]:
        """Resolve ``host`` once and check every address behind it.

        Raises:
            UrlNotAllowed: One of the addresses isn't allowed.
            InputUnavailable: The name doesn't resolve.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise InputUnavailable("the URL's host doesn't resolve") from exc
        addresses = list(dict.fromkeys(ipaddress.ip_address(str(info[4][0]).split("%")[0]) for info in found))
        for address in addresses:
            self.check_address(address)
        return addresses


def _literal_address(host: str) -> Address | None:
    """The address that ``host`` spells, in any form that a resolver would take (``127.1``, ``0x7f000001``)."""
    try:
        return ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        pass
    if not all(c in "0123456789abcdefx." for c in host.lower()) or not host[0].isdigit():
        return None
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _is_local_name(host: str) -> bool:
    name = host.rstrip(".").lower()
    return name == "localhost" or name.endswith((".localhost", ".local", ".internal"))
