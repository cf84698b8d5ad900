"""Which URLs may be reached."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from contract.egress import EgressPolicy
from contract.errors import InputUnavailable, UrlNotAllowed

STRICT = EgressPolicy()
HTTP = EgressPolicy(allow_http=True)


@pytest.mark.parametrize(
    "url",
    [
        "https://169.254.169.254/latest/meta-data",
        "https://localhost/x",
        "https://LOCALHOST./x",
        "https://foo.localhost/x",
        "https://metadata.google.internal/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://10.1.2.3/",
        "https://192.168.0.1/",
        "https://100.64.0.1/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fe80::1%25eth0]/",
        "https://[fd00::1]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://[2002:7f00:1::]/",
        "https://user:secret@example.com/",
        "https://@example.com/",
        "https://example.com\\@127.0.0.1/",
        "https://127.0.0.1./",
        "https://0x7f.1/",
        "https://017700000001/",
        "https://0/",
        "https://192.168.257/",
        "https://[::]/",
        "https://[::127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[::ffff:0:127.0.0.1]/",
        "https://[64:ff9b:1::7f00:1]/",
        "https://[2001:0:7f00:1::]/",
        "https://[fec0::1]/",
        "https://[ff02::1]/",
        "https://[3fff::1]/",
        "https://168.63.129.16/",
        "https://192.88.99.1/",
        "https://198.18.0.1/",
        "https://255.255.255.255/",
        "https://240.0.0.1/",
        "https://100.100.100.200/",
        "https://printer.local/",
        "https://localhost.localdomain/",
        "https://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",
        "https://ⓔxample.com/",
        "https://exam ple.com/",
        "https://example.com\t/",
        "\thttps://example.com/",
        "https://exa\nmple.com/",
        "https://example..com/",
        "https://-example.com/",
        "https://exa%6dple.com/",
        f"https://{'a' * 64}.com/",
        f"https://{'a.' * 127}com/",
        "https://example.com:22/",
        "https://example.com:25/",
        "https://example.com:0/",
        "https:///x",
        "https://example.com:99999/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "ftp://example.com/x.png",
        "data:image/png;base64,AAAA",
        "//example.com/x",
        "x",
        "",
    ],
)
def test_a_forbidden_url_is_refused(url: str) -> None:
    with pytest.raises(UrlNotAllowed):
        HTTP.check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.png",
        "https://8.8.8.8/x",
        "https://[2606:4700::1111]:8443/",
        "https://xn--bcher-kva.example/",
        "https://example.com./",
        "https://a_b.example/",
    ],
)
def test_a_public_https_url_is_allowed(url: str) -> None:
    STRICT.check_url(url)


def test_plain_http_needs_the_operators_leave() -> None:
    with pytest.raises(UrlNotAllowed, match="'http'; allowed: https"):
        STRICT.check_url("http://example.com/")
    HTTP.check_url("http://example.com/")


def test_an_error_never_repeats_credentials_from_the_url() -> None:
    with pytest.raises(UrlNotAllowed) as refused:
        STRICT.check_url("https://user:hunter2@example.com/")
    assert "hunter2" not in str(refused.value)


def test_the_operator_may_allow_a_network() -> None:
    policy = EgressPolicy(allow_networks=(ip_network("10.0.0.0/8"),))
    policy.check_address(ip_address("10.1.2.3"))
    policy.check_address(ip_address("::ffff:10.1.2.3"))
    with pytest.raises(UrlNotAllowed):
        policy.check_address(ip_address("192.168.0.1"))


def test_every_address_behind_a_name_is_checked() -> None:
    with pytest.raises(UrlNotAllowed):
        STRICT.resolve("localhost", 443)


def test_a_name_that_does_not_resolve_is_the_callers_fault() -> None:
    with pytest.raises(InputUnavailable):
        STRICT.resolve("no-such-host.invalid", 443)
