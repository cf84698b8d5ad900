"""W3C trace context: from the request to the task, to what a worker logs of it, and back to the caller."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from tests.api_gateway.conftest import Fleet, wait_until

TRACE_ID, CALLERS_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_trace_goes_with_the_task(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    traceparent = f"00-{TRACE_ID}-{CALLERS_SPAN}-01"

    response = api.post("/v1/tasks", json=text_task, headers={"traceparent": traceparent, "tracestate": "vendor=1"})

    told = response.headers["traceresponse"]
    assert re.fullmatch(rf"00-{TRACE_ID}-[0-9a-f]{{16}}-01", told)
    assert CALLERS_SPAN not in told, "the gateway's step is its own"
    attempt = fleet.claim()
    assert (attempt.spec.traceparent, attempt.spec.tracestate) == (told, "vendor=1")
    assert attempt.log_fields["trace_id"] == TRACE_ID
    log = fleet.stack.data_dir / "logs" / "gateway.log"
    wait_until(lambda: TRACE_ID in log.read_text())  # it is written after the answer
    (line,) = [json.loads(line) for line in log.read_text().splitlines() if TRACE_ID in line]
    assert (line["event"], line["trace_id"]) == ("request", TRACE_ID)


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "nonsense",
        f"ff-{TRACE_ID}-{CALLERS_SPAN}-01",
        f"00-{'0' * 32}-{CALLERS_SPAN}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID.upper()}-{CALLERS_SPAN}-01",
        f"00-{TRACE_ID}-{CALLERS_SPAN}-01-more",
    ],
)
def test_what_is_no_trace_context_begins_a_new_trace(api: httpx.Client, traceparent: str) -> None:
    told = api.get("/livez", headers={"traceparent": traceparent}).headers["traceresponse"]

    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", told)
    assert TRACE_ID not in told


def test_a_later_version_is_read_as_far_as_it_is_known(api: httpx.Client) -> None:
    later = f"01-{TRACE_ID}-{CALLERS_SPAN}-01-more"

    assert TRACE_ID in api.get("/livez", headers={"traceparent": later}).headers["traceresponse"]
