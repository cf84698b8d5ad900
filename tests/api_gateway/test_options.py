"""Options and operations: what goes together, what a schema may be, and what the worker is told."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.options import TaskOptions
from tests.api_gateway.conftest import PNG, Fleet, GatewayProcess

INLINE = {"base64": base64.b64encode(PNG).decode(), "media_type": "image/png"}
IMAGE: dict[str, Any] = {"kind": "image", "model": "ovis2-reader", "input": INLINE}
PAGES: dict[str, Any] = {**IMAGE, "kind": "document"}
FILM: dict[str, Any] = {**IMAGE, "kind": "video"}
SCHEMA = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}
IMPOSSIBLE = {**SCHEMA, "properties": {"total": {"type": "integer", "minimum": 5, "maximum": 3}}}


#: What was said before a question.
PAST = [{"role": "user", "text": "What is it?", "images": 1}, {"role": "assistant", "text": "A bill."}]
QUESTION: dict[str, Any] = {**IMAGE, "operation": "ask", "prompt": "Paid?"}


def extract(schema: Any) -> dict[str, Any]:
    return {**IMAGE, "operation": "extract", "options": {"schema": schema}}


DETOUR = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/a"}},
    "$defs": {"a": {"oneOf": [{"type": "null"}, {"allOf": [{"$ref": "#/$defs/b"}]}]}, "b": {"$ref": "#/$defs/a"}},
}


def branching(levels: int) -> dict[str, Any]:
    """Each level leads to the next by two equal ways."""
    defs: dict[str, Any] = {f"l{level}": {"anyOf": [{"$ref": f"#/$defs/l{level + 1}"}] * 2} for level in range(levels)}
    return {"anyOf": [{"$ref": "#/$defs/l0"}, {"type": "integer"}], "$defs": defs | {f"l{levels}": {"type": "string"}}}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "pages of a picture": ({**IMAGE, "options": {"pages": "1-2"}}, "/options/pages", "document, not image"),
    "pages in words": ({**PAGES, "options": {"pages": "all"}}, "/options/pages", "pattern"),
    "frames of a page": ({**PAGES, "options": {"num_frames": 3}}, "/options/num_frames", "video, not document"),
    "no frames": ({**FILM, "options": {"num_frames": 0}}, "/options/num_frames", "greater"),
    "frames twice": ({**FILM, "options": {"num_frames": 3, "fps": 1}}, "/options/fps", "not both"),
    "end before start": ({**FILM, "options": {"start_s": 5, "end_s": 5}}, "/options/end_s", "isn't after"),
    "hardly a stretch": ({**FILM, "options": {"start_s": 5, "end_s": 5.0001}}, "/options/end_s", "millisecond"),
    "hardly a start": ({**FILM, "options": {"end_s": 0.0004, "clip_s": 1}}, "/options/end_s", "millisecond"),
    "clips of nothing": ({**FILM, "options": {"clip_s": 0}}, "/options/clip_s", "greater"),
    "a film as a table": ({**FILM, "operation": "table"}, "/operation", "ocr, extract, caption, ask"),
    "two documents": (
        {"kind": "document", "model": "ovis2-4b", "inputs": [INLINE, INLINE]},
        "/inputs",
        "takes one file; here are 2",
    ),
    "reasoning about a caption": ({**IMAGE, "operation": "caption", "options": {"cot": True}}, "/options/cot", "ask"),
    "text layer as data": (
        {**PAGES, "operation": "extract", "options": {"schema": SCHEMA, "text_layer": "only"}},
        "/options/text_layer",
        "ocr and markdown",
    ),
    "stop inside JSON": (
        {**IMAGE, "operation": "extract", "options": {"schema": SCHEMA, "stop": ["}"]}},
        "/options/stop",
        "not extract",
    ),
    "stop inside an answer in JSON": (
        {**QUESTION, "options": {"schema": SCHEMA, "stop": ["}"]}},
        "/options/stop",
        "go with a schema",
    ),
    "reasoning inside JSON": ({**QUESTION, "options": {"schema": SCHEMA, "cot": True}}, "/options/cot", "a schema"),
    "an answer by a schema that isn't one": (
        {**QUESTION, "options": {"schema": {"type": "objekt"}}},
        "/options/schema",
        "no JSON",
    ),
    "past of a caption": ({**IMAGE, "operation": "caption", "history": PAST}, "/history", "goes with ask"),
    "past out of turn": ({**QUESTION, "history": [*PAST, PAST[1]]}, "/history/2/role", "user and assistant take turns"),
    "past without an answer": ({**QUESTION, "history": PAST[:1]}, "/history", "the assistant's"),
    "past with more pictures": (
        {**QUESTION, "history": [{**PAST[0], "images": 2}, PAST[1]]},
        "/history",
        "the turns have 2 pictures; the task has 1",
    ),
    "past with the assistant's picture": (
        {**QUESTION, "history": [PAST[0], {**PAST[1], "images": 1}]},
        "/history/1/images",
        "only a user's",
    ),
    "17 stops": ({**IMAGE, "options": {"stop": ["a"] * 17}}, "/options/stop", "at most 16"),
    "hot": ({**IMAGE, "options": {"temperature": 10.5}}, "/options/temperature", "less than or equal to 10"),
    "no mass": ({**IMAGE, "options": {"top_p": 0}}, "/options/top_p", "greater than 0"),
    "long memory": ({**IMAGE, "options": {"cache_s": 2_592_001}}, "/options/cache_s", "2592000"),
    "python's name": ({**IMAGE, "options": {"json_schema": SCHEMA}}, "/options/json_schema", "not a field"),
    "schema for a caption": (
        {**IMAGE, "operation": "caption", "options": {"schema": SCHEMA}},
        "/options/schema",
        "extract or ask, not caption",
    ),
    "extract without schema": ({**IMAGE, "operation": "extract"}, "/options/schema", "needs a JSON Schema"),
    "schema that isn't one": (extract({"type": "objekt"}), "/options/schema", "no JSON Schema"),
    "schema in a list": (extract([SCHEMA]), "/options/schema", ""),
    "impossible bounds": (extract(IMPOSSIBLE), "/options/schema", "unsatisfiable"),
    "impossible types": (extract({"allOf": [{"type": "string"}, {"type": "integer"}]}), "/options/schema", "types"),
    "endless": (extract({"$ref": "#"}), "/options/schema", "without end"),
    "endless for some values": (extract({"anyOf": [{"type": "string"}, {"$ref": "#"}]}), "/options/schema", "64 times"),
    "endless by a detour": (extract(DETOUR), "/options/schema", "without end"),
    "long chain of references": (extract(branching(40)), "/options/schema", "more than 64 schemas"),
    "nothing left": (extract({"enum": []}), "/options/schema", ""),
    "unsupported word": (extract({"not": {"type": "string"}}), "/options/schema", '"not"'),
    "elsewhere": (extract({"$ref": "https://example.com/s.json"}), "/options/schema", "begin with #"),
    "patterns of keys": (extract({"patternProperties": {"(a+)+": {}}}), "/options/schema", "patternProperties"),
    "unknown draft": (extract({"$schema": "https://a.b/c"}), "/options/schema", "draft"),
    "deep": (extract(nested(40)), "/options/schema", "64 levels"),
    "long": (extract({"description": "x" * 33_000}), "/options/schema", "the limit is 32768"),
}


@pytest.mark.parametrize(("body", "pointer", "said"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_together_is_refused_and_leaves_nothing(
    fleet: Fleet, api: httpx.Client, body: dict[str, Any], pointer: str, said: str
) -> None:
    response = api.post("/v1/tasks", json=body)

    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "invalid_request")
    assert problem["errors"][0]["pointer"] == pointer
    assert said in problem["errors"][0]["detail"]
    assert fleet.task_ids() == []
    assert fleet.keys() == []


ACCEPTED: dict[str, tuple[dict[str, Any], str]] = {
    "default of a picture": (IMAGE, "Read all the text in the image."),
    "default of a film": (FILM, "Describe the video."),
    "film as text": ({**FILM, "operation": "ocr"}, "Read all the text that can be seen in the video."),
    "table as CSV": ({**IMAGE, "operation": "table", "options": {"table_format": "csv"}}, "CSV"),
    "table": ({**IMAGE, "operation": "table"}, "as a Markdown table"),
    "extract": (extract(SCHEMA), '{"type":"object","properties":{"total":{"type":"integer"}},"required":["total"]}'),
    "own words": ({**extract(SCHEMA), "prompt": "What is the {schema}?"}, "What is the {schema}?"),
}


@pytest.mark.parametrize(("body", "asked"), ACCEPTED.values(), ids=ACCEPTED)
@pytest.mark.parametrize("model", ["ovis2-4b", "ovis1.6-gemma2-9b"])
def test_the_task_carries_the_words_of_its_models_family(
    fleet: Fleet, api: httpx.Client, body: dict[str, Any], asked: str, model: str
) -> None:
    assert api.post("/v1/tasks", json={**body, "model": model}).status_code == 202

    assert asked in fleet.claim(model).spec.prompt


def test_every_option_reaches_the_worker(fleet: Fleet, api: httpx.Client) -> None:
    sampling = {"temperature": 1, "top_p": 0.9, "top_k": 5, "repetition_penalty": 1.1, "seed": 7, "stop": ["END"]}
    options = {**sampling, "cot": True, "max_partition": 1, "max_new_tokens": 9, "cache_s": 60}
    body = {**IMAGE, "operation": "ask", "prompt": "Why?", "options": options}

    assert api.post("/v1/tasks", json=body).status_code == 202

    spec = fleet.claim().spec
    assert spec.options == TaskOptions(
        temperature=1.0,
        top_p=0.9,
        top_k=5,
        repetition_penalty=1.1,
        seed=7,
        stop=("END",),
        cot=True,
        max_partition=1,
        max_new_tokens=9,
        cache_s=60,
    )


def test_a_schema_reaches_the_worker_as_it_was_given(fleet: Fleet, api: httpx.Client) -> None:
    assert api.post("/v1/tasks", json=extract(SCHEMA)).status_code == 202

    assert fleet.claim().spec.options.json_schema == SCHEMA


def test_clips_are_asked_for_a_summary(fleet: Fleet, api: httpx.Client) -> None:
    body = {**FILM, "model": "ovis2-4b", "operation": "ask", "prompt": "Who wins?", "options": {"clip_s": 60}}

    assert api.post("/v1/tasks", json=body).status_code == 202

    [task_id] = fleet.task_ids()
    spec = api.get(f"/v1/tasks/{task_id}")
    assert spec.json()["kind"] == "video"
    stored = str(fleet.redis.hget(f"ovis:task:{task_id}", "spec"))
    assert "{captions}" in stored
    assert "Answer this about the whole video: Who wins?" in stored


def test_an_operators_file_replaces_the_prompts(
    start_gateway: Any, fleet: Fleet, tmp_path: Path, api: httpx.Client
) -> None:
    ours = Path("contract/prompts/ovis2-reader.toml").resolve().read_text()
    own = tmp_path / "prompts"
    own.mkdir()
    (own / "ovis2-reader.toml").write_text(ours.replace("Read all the text in the image.", "Lies!"))
    gateway: GatewayProcess = start_gateway(OVIS_PROMPTS_DIR=str(own))

    headers = {"Authorization": api.headers["Authorization"]}
    assert httpx.post(f"{gateway.url}/v1/tasks", json=IMAGE, headers=headers).status_code == 202

    assert fleet.claim().spec.prompt == "Lies!"
