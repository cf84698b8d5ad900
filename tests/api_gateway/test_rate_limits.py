"""Requests per second: counted over all gateways, told in headers, refused with 429."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx

from tests.api_gateway.conftest import KEYS, Fleet, GatewayProcess


def stretch_the_second(fleet: Fleet) -> None:
    """The count of this second lasts for the test."""
    (key,) = fleet.redis.scan_iter("ovis:rate*")
    assert 0 < fleet.redis.pttl(key) <= 1000
    fleet.redis.expire(key, 300)


def test_requests_over_the_limit_are_429_with_the_headers_of_the_draft(fleet: Fleet) -> None:
    first = fleet.caller("hasty").get("/v1/limits")
    stretch_the_second(fleet)
    answers = [first, *(fleet.caller("hasty").get("/v1/limits") for _ in range(6))]

    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert [answer.headers["RateLimit-Policy"] for answer in answers] == ['"requests";q=5;w=1'] * 7
    assert [answer.headers["RateLimit"][-5:] for answer in answers] == [f"{left};t=1" for left in (4, 3, 2, 1, 0, 0, 0)]
    refused = answers[-1]
    assert refused.json()["code"] == "rate_limited"
    assert refused.json()["retryable"] is True
    assert re.search(r"\b5 requests", refused.json()["detail"])
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.headers["RateLimit"] == '"requests";r=0;t=1'


def test_the_limit_holds_over_all_gateways(fleet: Fleet, start_gateway: Callable[..., GatewayProcess]) -> None:
    second = start_gateway().url
    headers = {"Authorization": f"Bearer {KEYS['hasty']}"}
    fleet.caller("hasty").get("/v1/limits")
    stretch_the_second(fleet)

    assert httpx.get(f"{second}/v1/limits", headers=headers).headers["RateLimit"] == '"requests";r=3;t=1'


def test_a_tenant_without_a_limit_is_told_of_none(fleet: Fleet, api: httpx.Client) -> None:
    response = api.get("/v1/limits")

    assert response.status_code == 200
    assert "RateLimit" not in response.headers
