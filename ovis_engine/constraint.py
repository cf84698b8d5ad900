"""Outputs that must match a JSON Schema or a regular expression: llguidance's grammars over the model's tokens."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer

from ovis_engine.errors import ConstraintFailedError, InvalidConstraintError

#: Longest schema or pattern in characters; compiling one takes time and memory on the serving machine.
MAX_CONSTRAINT_CHARS = 100_000
#: JSON is written as `json.dumps` writes it. Free white space would let a model fill its output with it.
JSON_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True)
class JsonSchema:
    """The output is a JSON value that the schema accepts, with properties in the schema's order.

    An output that reaches max_new_tokens first is cut short and not valid; bound strings and arrays by ``maxLength``
    and ``maxItems`` where that matters.

    Attributes:
        schema: A JSON Schema object, as a mapping or as JSON text.
    """

    schema: Mapping[str, Any] | str


@dataclass(frozen=True)
class Regex:
    """The whole output matches a regular expression.

    Attributes:
        pattern: In Rust's syntax: no look-around, no back-references; ``\\d`` and ``\\w`` know all of Unicode.
    """

    pattern: str


Constraint = JsonSchema | Regex


class Grammar:
    """Where one output stands in its constraint. The decode loop's thread only, once it has a row."""

    def __init__(self, matcher: LLMatcher) -> None:
        """Takes over a fresh matcher."""
        self._matcher = matcher

    @property
    def is_over(self) -> bool:
        """Whether nothing but an end token may follow."""
        return self._matcher.is_stopped()

    def allowed(self) -> npt.NDArray[np.uint8]:
        """Allowed next tokens as bits, least significant first: bit i of byte i // 8 for token i; may be longer.

        End tokens are allowed where the constraint is fulfilled.

        Raises:
            ConstraintFailedError: If the grammar library gave up.
        """
        mask = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        return mask

    def take(self, token_id: int) -> None:
        """Moves past a token that was allowed.

        Raises:
            ConstraintFailedError: If the grammar library gave up.
        """
        self._matcher.consume_token(token_id)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ConstraintFailedError("the constraint outgrew the limits of the grammar library")


class ConstraintCompiler:
    """Makes grammars for one model. Any thread; the tokenizer is prepared on first use."""

    def __init__(self, tokenizer_json: str, *, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        """Keeps what the first use needs.

        Args:
            tokenizer_json: The model's ``tokenizer.json``.
            vocab_size: Width of the model's logits; ids that the tokenizer lacks are never allowed.
            eos_token_ids: Ids that end an output.
        """
        self._tokenizer_json, self._vocab_size = tokenizer_json, vocab_size
        self._eos_token_ids = list(eos_token_ids)
        self._tokenizer: LLTokenizer | None = None
        self._lock = threading.Lock()

    def compile(self, constraint: Constraint) -> Grammar:
        """Compiles a constraint for one request.

        Raises:
            InvalidConstraintError: If it is malformed, too large or not supported; the message says why.
        """
        source, tokenizer = _source(constraint), self._prepared()
        try:
            matcher = LLMatcher(tokenizer, _grammar_text(constraint, source), log_level=0)
        except ValueError as exc:  # half a surrogate pair, or nested deeper than the library reads
            raise InvalidConstraintError(f"the {_name(constraint)} is not usable: {_first_line(str(exc))}") from exc
        if matcher.is_error():
            raise InvalidConstraintError(f"the {_name(constraint)} is not usable: {_first_line(matcher.get_error())}")
        if not np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8).any() or matcher.is_error():
            raise InvalidConstraintError(f"no output can satisfy the {_name(constraint)}")
        return Grammar(matcher)

    def _prepared(self) -> LLTokenizer:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = LLTokenizer(
                    self._tokenizer_json, n_vocab=self._vocab_size, eos_token=self._eos_token_ids
                )
            return self._tokenizer


def _source(constraint: Constraint) -> str:
    """A constraint as text, of a kind and length that the library may see."""
    if not isinstance(constraint, JsonSchema | Regex):
        raise InvalidConstraintError(f"a constraint must be a JsonSchema or a Regex, not {type(constraint).__name__}")
    source = constraint.pattern if isinstance(constraint, Regex) else _schema_text(constraint.schema)
    if not isinstance(source, str):
        raise InvalidConstraintError(f"the regular expression must be text, not {type(source).__name__}")
    if len(source) > MAX_CONSTRAINT_CHARS:
        raise InvalidConstraintError(
            f"the {_name(constraint)} has {len(source)} characters, at most {MAX_CONSTRAINT_CHARS} are allowed"
        )
    return source


def _grammar_text(constraint: Constraint, source: str) -> str:
    if isinstance(constraint, Regex):
        return LLMatcher.grammar_from_regex(source)
    return LLMatcher.grammar_from_json_schema(source, overrides=JSON_LAYOUT)  # type: ignore[arg-type]


def _schema_text(schema: Mapping[str, Any] | str) -> str:
    try:
        parsed = json.loads(schema) if isinstance(schema, str) else schema
        if not isinstance(parsed, Mapping):
            raise InvalidConstraintError("the JSON Schema must be an object")
        return json.dumps(parsed)
    except (ValueError, TypeError, RecursionError) as exc:
        raise InvalidConstraintError("the JSON Schema is not JSON") from exc


def _name(constraint: Constraint) -> str:
    return "regular expression" if isinstance(constraint, Regex) else "JSON Schema"


def _first_line(error: str) -> str:
    """The library's first sentence; what follows shows its own internals."""
    return " ".join(error.split())[:200]
