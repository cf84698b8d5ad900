"""Outputs under a JSON Schema or a pattern: valid for random weights, composed with everything else."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ovis_engine import (
    Engine,
    EngineConfig,
    InvalidConstraintError,
    JsonSchema,
    Regex,
    Request,
    Sampling,
    bundled_model_path,
)
from ovis_engine.chat import QwenChat
from ovis_engine.constraint import MAX_CONSTRAINT_CHARS, ConstraintCompiler
from ovis_engine.prompt import Prompter
from tests.engine.conftest import SMALL, TINY, picture

#: Bounded, so that random weights end: strings and arrays have a largest length, numbers a range.
SCHEMAS: dict[str, dict[str, Any]] = {
    "receipt": {
        "type": "object",
        "properties": {
            "shop": {"type": "string", "maxLength": 12},
            "total": {"type": "integer", "minimum": 0, "maximum": 99999},
            "currency": {"enum": ["EUR", "USD", "CNY"]},
            "items": {
                "type": "array",
                "maxItems": 3,
                "items": {
                    "type": "object",
                    "properties": {"name": {"type": "string", "maxLength": 8}, "count": {"type": "integer"}},
                    "required": ["name"],
                    "additionalProperties": False,
                },
            },
        },
        "required": ["shop", "total", "currency", "items"],
        "additionalProperties": False,
    },
    "optional": {
        "type": "object",
        "properties": {"paid": {"type": "boolean"}, "note": {"type": ["string", "null"], "maxLength": 6}},
        "additionalProperties": False,
    },
    "array": {"type": "array", "minItems": 2, "maxItems": 4, "items": {"type": "number", "minimum": -5, "maximum": 5}},
    "choice": {"anyOf": [{"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"}, {"const": {"none": True}}]},
    "reference": {
        "$defs": {"side": {"type": "integer", "minimum": 1, "maximum": 9}},
        "type": "array",
        "prefixItems": [{"$ref": "#/$defs/side"}, {"$ref": "#/$defs/side"}],
        "minItems": 2,
        "maxItems": 2,
    },
}


@pytest.fixture(scope="module")
def tiny_compiler() -> ConstraintCompiler:
    tokenizer = Prompter.from_checkpoint(TINY, QwenChat()).tokenizer
    return ConstraintCompiler(tokenizer.to_str(), vocab_size=768, eos_token_ids=(762, 760))


@pytest.mark.parametrize(
    ("model", "count"), [("ovis2-tiny", 200), ("ovis1.6-gemma2-tiny", 30), ("ovis1.6-llama3.2-tiny", 30)]
)
def test_generations_with_random_weights_parse_and_validate(parity: Path, model: str, count: int) -> None:
    """One in ten has a picture, whose token ids lie beyond the vocabulary; one in five is greedy."""
    names = list(SCHEMAS)
    requests = []
    with Engine.from_pretrained(parity / "models" / model, SMALL) as engine:
        tiled = picture("tiny20.png", side=engine.side)
        for index in range(count):
            greedy = index % 5 == 0
            requests.append(
                Request(
                    f"Number {index}?",
                    images=(tiled,) if index % 10 == 0 else (),
                    constraint=JsonSchema(SCHEMAS[names[index % len(names)]]),
                    sampling=Sampling() if greedy else Sampling(temperature=0.5 + index / 100, seed=index),
                    max_new_tokens=600,
                    request_id=f"json-{index}",
                )
            )
        futures = [engine.submit(request) for request in requests]
        completions = [future.result(120) for future in futures]
    assert len(completions) == count
    for index, completion in enumerate(completions):
        assert completion.finish_reason == "stop", completion.text
        jsonschema.validate(json.loads(completion.text), SCHEMAS[names[index % len(names)]])
    assert len({completion.text for completion in completions}) > count // 2


def test_a_pattern_is_matched_as_a_whole(engine: Engine) -> None:
    pattern = r"[0-9]{3}-[a-z]{2,5}( total)?"
    for seed in range(10):
        request = Request("Hm?", constraint=Regex(pattern), sampling=Sampling(temperature=1.5, seed=seed))
        completion = engine.submit(request).result(30)
        assert completion.finish_reason == "stop"
        assert re.fullmatch(pattern, completion.text)


def test_the_end_token_counts_only_where_the_pattern_allows_it() -> None:
    """Without a constraint the bundled model ends almost at once."""
    with Engine.from_pretrained(bundled_model_path(), EngineConfig(dtype="float32")) as engine:
        free = engine.submit(Request("Hi", max_new_tokens=60)).result(60)
        held = engine.submit(Request("Hi", max_new_tokens=60, constraint=Regex("[a-z]{30}"))).result(60)
    assert free.finish_reason == "stop"
    assert re.fullmatch("[a-z]{30}", held.text)


def test_constrained_rows_are_the_same_alone_beside_others_and_after_preemption(engine: Engine) -> None:
    requests = [
        Request(
            f"Number {index}?",
            constraint=[None, JsonSchema(SCHEMAS["receipt"]), Regex("([a-z]{3} ){20}")][index % 3],
            sampling=Sampling() if index % 2 else Sampling(temperature=1.0, seed=index, repetition_penalty=1.2),
            ignore_eos=index % 3 == 0,
            max_new_tokens=70,
            request_id=f"mixed-{index}",
        )
        for index in range(9)
    ]
    alone = [engine.submit(request).result(60).text for request in requests]
    futures = [engine.submit(request) for request in requests]
    assert [future.result(60).text for future in futures] == alone
    with Engine.from_pretrained(TINY, replace(SMALL, kv_cache_tokens=240, page_size=8)) as tight:
        futures = [tight.submit(request) for request in requests]
        assert [future.result(60).text for future in futures] == alone
        assert tight.stats().preemptions > 0


def test_a_finished_constraint_ends_the_row_even_past_end_tokens(engine: Engine) -> None:
    request = Request("Go.", constraint=Regex("abc"), ignore_eos=True, max_new_tokens=50)
    completion = engine.submit(request).result(30)
    assert (completion.text, completion.finish_reason) == ("abc", "stop")


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_the_end_token_of_a_constrained_output_is_not_among_its_ids(engine: Engine, ignore_eos: bool) -> None:
    # Nothing but an end token fits this pattern.
    request = Request("Go.", constraint=Regex(""), ignore_eos=ignore_eos, max_new_tokens=50, logprobs=1)
    completion = engine.submit(request).result(30)
    assert (completion.text, completion.token_ids, completion.logprobs) == ("", (), ())
    assert (completion.finish_reason, completion.num_output_tokens) == ("stop", 1)


def test_too_few_tokens_cut_the_output_and_say_so(engine: Engine) -> None:
    request = Request("Go.", constraint=Regex("[a-z]{40}"), max_new_tokens=3)
    completion = engine.submit(request).result(30)
    assert (completion.finish_reason, completion.num_output_tokens) == ("length", 3)


@pytest.mark.parametrize(
    "constraint",
    [
        JsonSchema({"type": "nonsense"}),
        JsonSchema({"type": 5}),
        JsonSchema({"type": "string", "pattern": "("}),
        JsonSchema({"$ref": "#/$defs/missing"}),
        JsonSchema({"$ref": "http://127.0.0.1:9/schema"}),
        JsonSchema({"not": {"type": "string"}}),
        JsonSchema({"type": "integer", "minimum": 5, "maximum": 4}),
        JsonSchema("{"),
        JsonSchema("[]"),
        pytest.param(JsonSchema({"const": object()}), id="not JSON"),
        JsonSchema({"enum": ["x" * MAX_CONSTRAINT_CHARS]}),
        Regex("("),
        Regex("(?=a)b"),
        Regex(r"(a)\1"),
        Regex("a" * (MAX_CONSTRAINT_CHARS + 1)),
        JsonSchema('{"items":' * 200 + "{}" + "}" * 200),
        pytest.param(JsonSchema({"const": "\ud800"}), id="surrogate in a schema"),
        pytest.param(Regex("a\ud800"), id="surrogate in a pattern"),
        Regex(5),  # type: ignore[arg-type]
        "abc",
    ],
    ids=lambda constraint: str(constraint)[:60],
)
def test_an_unusable_constraint_is_the_callers_error_at_submit(engine: Engine, constraint: JsonSchema | Regex) -> None:
    with pytest.raises(InvalidConstraintError) as caught:
        engine.submit(Request("Go.", constraint=constraint))
    assert caught.value.code == "invalid_constraint"
    assert len(caught.value.message) < 300
    assert engine.submit(Request("Still there?", max_new_tokens=1)).result(30).num_output_tokens == 1


def test_many_threads_may_compile_at_once(tiny_compiler: ConstraintCompiler) -> None:
    with ThreadPoolExecutor(8) as threads:
        grammars = list(threads.map(lambda _: tiny_compiler.compile(JsonSchema(SCHEMAS["receipt"])), range(32)))
    assert all(not grammar.is_over for grammar in grammars)
