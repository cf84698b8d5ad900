"""The form of an answer that is more than text: what holds generation to it, and the data that comes out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from contract.json_schemas import follows
from contract.task import TaskSpec
from ovis_engine import JsonSchema
from workers.checks import Finding
from workers.tables import read_rows

_LABEL = {"type": "string", "maxLength": 200}
_NUMBER = {"type": "number", "minimum": -(10**12), "maximum": 10**12}
_POINT = {
    "type": "object",
    "properties": {
        "x": {"anyOf": [_LABEL, _NUMBER]},
        "y": {"anyOf": [_NUMBER, {"type": "null"}]},
    },
    "required": ["x", "y"],
    "additionalProperties": False,
}
_SERIES = {
    "type": "object",
    "properties": {"name": _LABEL, "points": {"type": "array", "items": _POINT, "maxItems": 500}},
    "required": ["name", "points"],
    "additionalProperties": False,
}

#: Levels of lists and objects in an answer beyond which it can't be stored with its record.
MAX_DEPTH = 100

#: The form of the operation ``chart``.
CHART_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"anyOf": [_LABEL, {"type": "null"}]},
        "x_label": {"anyOf": [_LABEL, {"type": "null"}]},
        "y_label": {"anyOf": [_LABEL, {"type": "null"}]},
        "series": {"type": "array", "items": _SERIES, "maxItems": 50},
    },
    "required": ["title", "x_label", "y_label", "series"],
    "additionalProperties": False,
}

#: Bounds of what a schema leaves open, for a second run whose first went round in circles.
TIGHT_STRING, TIGHT_ITEMS, TIGHT_NUMBER = 200, 50, 10**12

_NUMBER_BOUNDS = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf", "enum", "const"}

#: A code block around the whole answer; models like to put one there.
_FENCED = re.compile(r"\s*```[\w+-]*\n(.*?)\n?```\s*", re.DOTALL)


def schema_of(spec: TaskSpec) -> dict[str, Any] | None:
    """The JSON Schema that the task's answer follows; None where it is text."""
    if spec.operation == "chart":
        return CHART_SCHEMA
    return spec.options.json_schema


def constraint_of(spec: TaskSpec, *, tight: bool) -> JsonSchema | None:
    """What generation is held to; ``tight`` bounds what the schema leaves open."""
    schema = schema_of(spec)
    if schema is None:
        return None
    return JsonSchema(tightened(schema) if tight else schema)


def is_loose(spec: TaskSpec) -> bool:
    """Whether the answer follows a schema that leaves open what a second run could bound."""
    schema = schema_of(spec)
    return schema is not None and tightened(schema) != schema


def shape(spec: TaskSpec, text: str) -> tuple[str, JsonValue, tuple[Finding, ...]]:
    """The text as it is given back, its data, and what is wrong with them."""
    schema = schema_of(spec)
    if schema is not None:
        data = _read_json(text)
        if data is None or not follows(schema, data[0]):
            return text, None, ("schema_mismatch",)
        return text, data[0], ()
    if spec.operation in ("table", "markdown"):
        fenced = _FENCED.fullmatch(text)
        text = fenced[1] if fenced else text
    if spec.operation == "table":
        rows: Any = read_rows(text, spec.options.table_format or "markdown")
        return text, rows, () if rows else ("no_table",)
    return text, None, ()


def _read_json(text: str) -> tuple[JsonValue] | None:
    """The value, in a tuple as it may be None; None where it isn't JSON that can be stored."""
    try:
        value = json.loads(text)
        # Half a surrogate pair and a number beyond floats pass the first, not the second.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return None
    return (value,) if _depth(value) <= MAX_DEPTH else None


def _depth(value: JsonValue) -> int:
    """Levels of lists and objects inside one another."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, list | dict)]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth


def tightened(schema: Any) -> Any:
    """The schema with bounds where it has none. What follows it follows the original."""
    if isinstance(schema, list):
        return [tightened(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    # Data of the caller's, not schemas.
    tight = {key: value if key in ("enum", "const") else tightened(value) for key, value in schema.items()}
    kind = schema.get("type")
    if kind == "string" and not tight.keys() & {"maxLength", "pattern", "format", "enum", "const"}:
        tight["maxLength"] = max(TIGHT_STRING, _number(tight.get("minLength")))
    if kind == "array" and "maxItems" not in tight:
        tight["maxItems"] = max(TIGHT_ITEMS, _number(tight.get("minItems")))
    if kind in ("integer", "number") and not tight.keys() & _NUMBER_BOUNDS:
        tight["minimum"], tight["maximum"] = -TIGHT_NUMBER, TIGHT_NUMBER
    return tight


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
