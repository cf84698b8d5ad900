"""One request's trace, from its gateway to the worker and the webhook, as an OpenTelemetry collector gets it."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ovis_fleet.stack import LocalStack, StackConfig
from tests.e2e.conftest import MODEL

TRACE_ID, CALLERS_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Takes spans, and webhooks."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.spans: dict[str, tuple[str, Any]] = {}
        self.hooks: list[dict[str, str]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces":
            plain = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            for resource in ExportTraceServiceRequest.FromString(plain).resource_spans:
                (service,) = [
                    item.value.string_value for item in resource.resource.attributes if item.key == "service.name"
                ]
                for scope in resource.scope_spans:
                    self.server.spans.update({span.span_id.hex(): (service, span) for span in scope.spans})
        else:
            self.server.hooks.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_trace_is_told_from_the_request_to_the_webhook(collector: Collector) -> None:
    env = {
        "OVIS_OTLP_ENDPOINT": collector.url,
        "OVIS_TRACE_SHARE": "0",
        "OVIS_EGRESS_ALLOW_HTTP": "true",
        "OVIS_EGRESS_ALLOW_CIDRS": "127.0.0.0/8",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    body = {"kind": "text", "model": MODEL, "operation": "ask", "prompt": "hi", "options": {"max_new_tokens": 2}}
    body["webhook"] = {"url": f"{collector.url}/hook", "events": ["task.succeeded"]}
    with LocalStack(StackConfig(extra_env=env)) as fleet:
        headers = {"Authorization": f"Bearer {fleet.api_key}", "tracestate": "vendor=1"}
        headers["traceparent"] = f"00-{TRACE_ID}-{CALLERS_SPAN}-01"
        answer = httpx.post(f"{fleet.url}/v1/tasks", json=body, headers={**headers, "Prefer": "wait=60"}, timeout=90)
        assert answer.json()["status"] == "succeeded", answer.text
        deadline = time.monotonic() + 30
        while len(collector.spans) < 3:
            assert time.monotonic() < deadline, collector.spans
            time.sleep(0.05)

    told = {span.name: (service, span) for service, span in collector.spans.values()}
    assert {name: service for name, (service, _) in told.items()} == {
        "POST /v1/tasks": "ovis-gateway",
        "part": "ovis-worker-model",
        "webhook": "ovis-worker-io",
    }, "nothing is told of traces that aren't recorded"
    spans = {name: span for name, (_, span) in told.items()}
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE_ID}
    request = spans["POST /v1/tasks"]
    assert request.parent_span_id.hex() == CALLERS_SPAN
    assert spans["part"].parent_span_id == spans["webhook"].parent_span_id == request.span_id
    assert {span.trace_state for span in spans.values()} == {"vendor=1"}
    known = {item.key: item.value.string_value or item.value.int_value for item in spans["part"].attributes}
    assert (known["ovis.task"], known["ovis.outcome"]) == (answer.json()["id"], "succeeded")
    assert spans["part"].status.code != 2
    (hook,) = collector.hooks
    assert hook["traceparent"] == f"00-{TRACE_ID}-{spans['webhook'].span_id.hex()}-01"
    assert hook["tracestate"] == "vendor=1"
