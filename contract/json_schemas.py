"""The JSON Schemas that callers give: which are taken, and whether a value follows one.

Generation is held to a schema by llguidance, so a schema that it can't hold is refused before anything is queued.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, cast

import jsonschema
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from llguidance import LLMatcher, LLTokenizer
from referencing import Registry
from referencing.jsonschema import specification_with

from contract.errors import InvalidRequest
from contract.schema_steps import check_steps

#: Longest schema, in characters of JSON. Compiling one of this size takes up to about a tenth of a second.
MAX_SCHEMA_CHARS = 32_768

#: Deepest nesting of a schema; the libraries recurse.
MAX_SCHEMA_DEPTH = 64

#: Keywords looked at for one value, most. What a model can write needs some ten thousands; these are 3 seconds.
MAX_WORK = 100_000

#: Written as the engine writes JSON: see ``ovis_engine.constraint``.
_JSON_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

#: References that may lead out of the schema: nothing is fetched for a caller's schema.
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")

#: Python's regular expressions can take exponential time; the grammar holds ``pattern``, and keys have no patterns.
_REFUSED = ("patternProperties",)


def check_schema(schema: Mapping[str, Any]) -> None:
    """Find out whether generation can be held to ``schema``.

    Raises:
        InvalidRequest: It is too large, no JSON Schema, uses what isn't supported, or nothing can satisfy it; the
            message says which.
    """
    _check_size(schema)
    for key, value in _entries(schema):
        if key in _REFERENCES and not (isinstance(value, str) and value.startswith("#")):
            raise InvalidRequest(f"{key} must lead to a place in the schema itself, so begin with #")
        if key in _REFUSED:
            raise InvalidRequest(f"{key} isn't supported")
    kind = _validator_class(schema)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as exc:
        raise InvalidRequest(f"this is no JSON Schema: at {exc.json_path}: {exc.message[:200]}") from exc
    check_steps(schema, specification_with(kind.ID_OF(kind.META_SCHEMA)))
    _check_grammar(schema)


def follows(schema: Mapping[str, Any], value: object) -> bool:
    """Whether ``value`` follows a checked schema. Patterns are left out: the grammar holds them.

    A value that takes too much work, or is nested deeper than can be looked at, doesn't follow.
    """
    kind = _validator_class(schema)
    work = _Work()
    keywords: dict[str, _Keyword] = {name: partial(work.do, keyword) for name, keyword in kind.VALIDATORS.items()}
    # The grammar takes no other kind of reference.
    keywords |= {"$ref": partial(work.do_once, kind.VALIDATORS["$ref"]), "pattern": _accept}
    try:
        return bool(extend(kind, keywords)(schema, registry=Registry()).is_valid(value))
    except (_TooMuchWorkError, RecursionError):
        return False


_Keyword = Callable[[Validator, Any, Any, Any], Iterator[jsonschema.ValidationError] | None]


class _TooMuchWorkError(Exception):
    """One value took more than ``MAX_WORK``."""


class _Work:
    """What was looked at for one value. Without it, references that lead to one place by many ways cost each way."""

    def __init__(self) -> None:
        self._left = MAX_WORK
        # Whether a reference's value follows, None while that is found out: by the identities of both, which are kept
        # so that neither is used again.
        self._seen: dict[tuple[int, int], tuple[bool | None, Any, Any]] = {}

    def do(
        self, keyword: _Keyword, validator: Validator, argument: Any, instance: Any, schema: Any
    ) -> Iterator[jsonschema.ValidationError]:
        """Look at one keyword."""
        self._left -= 1
        if self._left < 0:
            raise _TooMuchWorkError
        yield from keyword(validator, argument, instance, schema) or ()

    def do_once(
        self, keyword: _Keyword, validator: Validator, argument: Any, instance: Any, schema: Any
    ) -> Iterator[jsonschema.ValidationError]:
        """Look at one keyword, or say what it said of this value. A reference that leads back to itself has no end."""
        key = (id(schema), id(instance))
        if key not in self._seen:
            self._seen[key] = (None, schema, instance)
            error = next(self.do(keyword, validator, argument, instance, schema), None)
            self._seen[key] = (error is None, schema, instance)
        followed, _, _ = self._seen[key]
        if followed is None:
            # Not left to Python's own limit: a library in the chain that isn't Python's makes a panic of that error.
            raise _TooMuchWorkError
        if not followed:
            yield jsonschema.ValidationError("not what the reference leads to")


def _accept(_validator: Validator, _pattern: object, _instance: object, _schema: object) -> Iterator[Any]:
    return iter(())


def _check_size(schema: Mapping[str, Any]) -> None:
    length = len(json.dumps(schema))
    if length > MAX_SCHEMA_CHARS:
        raise InvalidRequest(f"the schema has {length} characters; the limit is {MAX_SCHEMA_CHARS}")
    depth, level = 0, [schema]
    while level:
        depth += 1
        if depth > MAX_SCHEMA_DEPTH:
            raise InvalidRequest(f"the schema is nested more than {MAX_SCHEMA_DEPTH} levels deep")
        level = [child for node in level for child in _children(node)]


def _children(node: Any) -> list[Any]:
    values = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    return [value for value in values if isinstance(value, (Mapping, list))]


def _entries(node: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    if isinstance(node, Mapping):
        yield from node.items()
    for child in _children(node):
        yield from _entries(child)


def _validator_class(schema: Mapping[str, Any]) -> type[Validator]:
    kind = validator_for(schema, default=None) if "$schema" in schema else jsonschema.Draft202012Validator
    if kind is None:
        raise InvalidRequest("$schema names no draft that is known here; leave it out for 2020-12")
    return cast(type[Validator], kind)


def _check_grammar(schema: Mapping[str, Any]) -> None:
    try:
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_JSON_LAYOUT)  # type: ignore[arg-type]
        matcher = LLMatcher(_bytes_as_tokens(), grammar, log_level=0)
        satisfiable = not matcher.is_error() and any(matcher.compute_bitmask())
    except Exception as exc:
        # The library has no type of its own for a schema that it can't read.
        raise InvalidRequest("generation can't be held to this schema") from exc
    if matcher.is_error():
        why = " ".join(matcher.get_error().split())[:200]
        raise InvalidRequest(f"generation can't be held to this schema: {why}")
    if not satisfiable:
        raise InvalidRequest("no value can satisfy the schema")


@cache
def _bytes_as_tokens() -> LLTokenizer:
    return LLTokenizer("byte")
