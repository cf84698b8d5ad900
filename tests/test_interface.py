"""What ``/openapi.json`` says of the interface, ``docs/api.md`` says too, and every error has an example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api_gateway.app import create_app
from api_gateway.errors import HTTP_STATUS, RETRY_AFTER_S, openai_status
from api_gateway.settings import GatewaySettings
from tests.api_gateway.conftest import write_tenants

PAGE = (Path(__file__).parent.parent / "docs" / "api.md").read_text()


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    tenants = write_tenants(tmp_path_factory.mktemp("interface") / "tenants.json")
    return create_app(GatewaySettings(tenants_file=tenants)).openapi()


def responses(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every route, status and response."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                yield f"{method.upper()} {path}", status, response


def documented_routes() -> str:
    """The page's block of routes, with every path parameter written the same."""
    return re.sub(r"{\w+}", "{}", PAGE.split("```")[1])


def test_every_route_is_documented(document: dict[str, Any]) -> None:
    block = documented_routes()
    missing = []
    for path, operations in document["paths"].items():
        plain = re.sub(r"{\w+}", "{}", path)
        for method in operations:
            line = rf"^{method.upper()} [^\n]*{re.escape(plain)}(?=[\s]|$)"
            if not re.search(line, block, re.MULTILINE):
                missing.append(f"{method.upper()} {path}")
    assert missing == []


def test_every_status_is_documented(document: dict[str, Any]) -> None:
    statuses = {status for _, status, _ in responses(document)}
    assert [status for status in sorted(statuses) if not re.search(rf"\b{status}\b", PAGE)] == []


def test_every_header_is_documented(document: dict[str, Any]) -> None:
    sent = {name for _, _, response in responses(document) for name in response.get("headers", {})}
    taken = {
        parameter["name"]
        for operations in document["paths"].values()
        for operation in operations.values()
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "header"
    }
    assert {"X-Request-Id", "traceresponse", "RateLimit", "Retry-After"} <= sent
    assert [name for name in sorted(sent | taken) if f"`{name}".lower() not in PAGE.lower()] == []


def test_every_error_response_has_an_example_of_every_code(document: dict[str, Any]) -> None:
    shown = set()
    for route, status, response in responses(document):
        if int(status) < 400:
            continue
        ((media_type, content),) = response["content"].items()
        assert content["examples"], (route, status)
        for code, example in content["examples"].items():
            value = example["value"]
            if media_type == "application/json":
                assert (value["error"]["code"], openai_status(code)) == (code, int(status))
            else:
                assert media_type == "application/problem+json"
                assert (value["code"], value["status"], HTTP_STATUS[code]) == (code, int(status), int(status))
            shown.add(code)
    ended = {"attempts_exhausted", "deadline_exceeded", "engine_died", "limit_exceeded", "media_process_died"}
    unseen = {"method_not_allowed", "not_an_image", "rejected_by_engine", "truncated_image"}
    assert set(HTTP_STATUS) - shown <= ended | unseen


def test_every_answer_that_says_when_to_ask_again_is_described_so(document: dict[str, Any]) -> None:
    late = {str(HTTP_STATUS[code]) for code in RETRY_AFTER_S}
    lacking = [
        (route, status)
        for route, status, response in responses(document)
        if status in late and "Retry-After" not in response["headers"]
    ]
    assert lacking == []
