"""What is doubtful about an answer, its form, and how a page lies: pure functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contract.json_schemas import check_schema, follows
from contract.options import TaskOptions
from contract.results import PartResult, Usage
from contract.task import TaskSpec
from ovis_engine import tile_image
from workers.checks import LOOP_TIMES, ends_in_a_loop, findings
from workers.forms import CHART_SCHEMA, is_loose, shape, tightened
from workers.orientation import lies_sideways
from workers.questions import Manner
from workers.second_runs import FIRM_PENALTY, STIRRED_TEMPERATURE, is_better, other_manner
from workers.tables import read_rows

SAMPLES = Path(__file__).parent.parent.parent / "ovis_engine" / "models" / "ovis2-reader" / "samples"


@pytest.mark.parametrize(
    ("text", "reason", "inked", "expected"),
    [
        ("Total 9.50", "stop", True, ()),
        ("Total 9.50", "length", True, ("truncated",)),
        ("Total 9.50", "repetition", True, ("repetition",)),
        (" \n", "stop", True, ("empty",)),
        ("", "stop", False, ()),
        ("Total 9.50\n" * 40, "stop", True, ("repetition",)),
        ("Once. " + "the same words again, " * 20, "length", True, ("repetition", "truncated")),
        ("the same words again, " * 20 + "and then the end of it.", "stop", True, ()),
        ("-" * 500, "stop", True, ()),
        ("| | | |\n" * 100, "stop", True, ()),
        ("Chapter " + ". . " * 100 + "7", "stop", True, ()),
        ("0.00\n" * 30, "stop", True, ()),
    ],
    ids=[
        "fine",
        "cut",
        "loop seen",
        "nothing",
        "blank",
        "lines",
        "words",
        "it ended",
        "rule",
        "cells",
        "dots",
        "noughts",
    ],
)
def test_doubtful_answers_are_found(text: str, reason: Any, inked: bool, expected: tuple[str, ...]) -> None:
    assert findings(text, reason, inked=inked) == expected


@given(
    st.text(max_size=200),
    st.text(st.characters(categories=["L"]), min_size=3, max_size=150).filter(lambda piece: len(set(piece)) > 2),
)
def test_any_piece_over_and_over_is_a_loop(before: str, piece: str) -> None:
    assert ends_in_a_loop(before + piece * max(LOOP_TIMES, -(-240 // len(piece))))


@given(st.lists(st.integers(0, 10**9), max_size=60, unique=True))
def test_lines_that_differ_are_none(numbers: list[int]) -> None:
    assert not ends_in_a_loop("\n".join(f"Item {number} costs {number * 7}" for number in numbers))


TABLES: dict[str, tuple[str, Any, Any]] = {
    "markdown": ("Prices:\n\n| a | b\\|c |\n|---|:-:|\n| 1 |  |\n", "markdown", [["a", "b|c"], ["1", ""]]),
    "csv": ('a,"b, c"\n1,"say ""x"""\n', "csv", [["a", "b, c"], ["1", 'say "x"']]),
    "html": (
        "<table><tr><th>a</th><th>b &amp; c</th></tr><tr><td>1<br>2</td><td/></tr></table>",
        "html",
        [["a", "b & c"], ["1\n2", ""]],
    ),
    "words as markdown": ("There is no table.", "markdown", None),
    "words as csv": ("There is no table.", "csv", None),
    "html with what looks like markup": (
        "<table><tr><td>a</td><td><![foo[x</td></tr><tr><td><![CDATA[b]]></td><td><!c></td></tr></table>",
        "html",
        [["a", "<![foo[x"], ["<![CDATA[b]]>", ""]],
    ),
    "words as html": ("There is no table.", "html", None),
    "broken quotes": ('a,"b\n', "csv", None),
    "nothing": ("", "markdown", None),
}


@pytest.mark.parametrize(("text", "form", "rows"), TABLES.values(), ids=TABLES)
def test_rows_are_read_out_of_a_table(text: str, form: Any, rows: Any) -> None:
    assert read_rows(text, form) == rows


MARKUP = st.lists(
    st.sampled_from(
        ["<", ">", "!", "[", "]", "<![", "<td>", "</td", "<tr", "&#", "CDATA[", "-", "?", "x", "|", '"', ","]
    )
).map("".join)


@given(st.text(max_size=300) | MARKUP, st.sampled_from(["markdown", "html", "csv"]))
def test_any_text_is_read_without_an_error(text: str, form: Any) -> None:
    rows = read_rows(text, form)
    assert rows is None or all(isinstance(cell, str) for row in rows for cell in row)


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"total": {"type": "number"}, "kind": {"enum": ["a", {"type": "string"}]}},
    "required": ["total"],
}


def spec(operation: Any, **options: Any) -> TaskSpec:
    return TaskSpec(kind="image", model="ovis2-reader", operation=operation, prompt="p", options=TaskOptions(**options))


@pytest.mark.parametrize(
    ("text", "data", "wrong"),
    [
        ('{"total": 9.5}', {"total": 9.5}, ()),
        ('{"total": "9.5"}', None, ("schema_mismatch",)),
        ('{"total": 9', None, ("schema_mismatch",)),
        ('{"total": 1e999}', None, ("schema_mismatch",)),
        ('{"total": 1, "more": "\\ud800"}', None, ("schema_mismatch",)),
        ("[" * 100_000, None, ("schema_mismatch",)),
    ],
    ids=["right", "wrong type", "cut", "beyond floats", "half a character", "bottomless"],
)
def test_data_is_given_only_where_it_follows_the_schema(text: str, data: Any, wrong: tuple[str, ...]) -> None:
    assert shape(spec("extract", schema=SCHEMA), text) == (text, data, wrong)


def test_a_code_block_around_a_page_is_taken_off() -> None:
    assert shape(spec("markdown"), "```markdown\n# A\n\n`b`\n```\n") == ("# A\n\n`b`", None, ())
    assert shape(spec("table"), "```\n|a|b|\n```") == ("|a|b|", [["a", "b"]], ())
    assert shape(spec("table"), "nothing of the kind")[2] == ("no_table",)
    assert shape(spec("ocr"), "```\nx\n```")[0] == "```\nx\n```"


@pytest.mark.parametrize("depth", [90, 300])
def test_an_answer_nested_deeper_than_a_record_can_hold_is_no_data(depth: int) -> None:
    text = '{"a": ' * depth + "1" + "}" * depth

    _, data, wrong = shape(spec("extract", schema={"type": "object"}), text)

    assert (data is None, wrong) == ((True, ("schema_mismatch",)) if depth > 100 else (False, ()))
    PartResult(text=text, data=data, finish_reason="stop", blob_key="x", usage=Usage()).model_dump_json()


def test_a_chart_has_a_form_that_generation_can_be_held_to() -> None:
    check_schema(CHART_SCHEMA)
    check_schema(tightened(CHART_SCHEMA))
    series = [{"name": "2024", "points": [{"x": "May", "y": 3.5}, {"x": 6, "y": None}]}]
    text = json.dumps({"title": "Sales", "x_label": None, "y_label": "EUR", "series": series})
    assert shape(spec("chart"), text) == (text, json.loads(text), ())


def test_a_tightened_schema_has_an_end_and_keeps_the_callers_words() -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 300},
            "code": {"type": "string", "pattern": "^[a-z]+$"},
            "items": {"type": "array", "items": {"type": "integer"}},
            "kind": {"enum": [{"type": "string"}]},
        },
    }
    tight = tightened(schema)
    check_schema(tight)
    assert tight["properties"]["name"] == {"type": "string", "minLength": 300, "maxLength": 300}
    assert tight["properties"]["code"] == schema["properties"]["code"]
    assert tight["properties"]["items"]["maxItems"] == 50
    assert tight["properties"]["items"]["items"]["maximum"] == 10**12
    assert tight["properties"]["kind"] == schema["properties"]["kind"]
    value = {"name": "x" * 300, "code": "ab", "items": [1], "kind": {"type": "string"}}
    assert follows(tight, value)
    assert follows(schema, value)


def test_a_pattern_that_python_would_never_finish_is_left_to_the_grammar() -> None:
    assert follows({"type": "string", "pattern": "^(a+)+$"}, "a" * 60 + "b")


def test_references_that_lead_to_one_place_by_many_ways_cost_each_place_once() -> None:
    defs = {f"l{n}": {"anyOf": [{"$ref": f"#/$defs/l{n + 1}"} for _ in range(2)]} for n in range(30)}
    schema: dict[str, Any] = {"$ref": "#/$defs/l0", "$defs": {**defs, "l30": {"type": "string"}}}
    check_schema(schema)
    assert follows(schema, "a")
    assert not follows(schema, 1)


def test_equal_words_at_two_places_are_looked_at_by_their_own_schemas() -> None:
    short, word = {"$ref": "#/$defs/short"}, {"$ref": "#/$defs/word"}
    defs = {"short": {"type": "string", "maxLength": 2}, "word": {"type": "string"}}
    schema = {"type": "object", "properties": {"a": short, "b": word}, "$defs": defs}
    assert follows(schema, {"a": "xx", "b": "xxx"})
    assert not follows(schema, {"a": "xxx", "b": "xxx"})


def test_a_value_that_takes_too_much_work_follows_nothing() -> None:
    branches = [{"type": "array", "items": {"type": "array", "maxItems": n}} for n in range(300)]
    schema = {"anyOf": [*branches, {"type": "array"}]}
    assert follows(schema, [[1] * 300] * 2)
    assert not follows(schema, [[1] * 300] * 1000 + ["x"])


def test_trees_may_be_as_deep_as_a_record_can_hold() -> None:
    node = {"type": "object", "properties": {"below": {"$ref": "#"}}, "additionalProperties": False}
    check_schema(node)
    value: dict[str, Any] = {}
    for _ in range(60):
        value = {"below": value}
    assert follows(node, value)
    assert not follows({"anyOf": [{"type": "string"}, {"$ref": "#"}]}, 1)


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.png")), ids=lambda path: path.stem)
@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_a_page_of_print_on_its_side_is_seen(sample: Path, angle: int) -> None:
    with Image.open(sample) as page:
        turned = page.rotate(angle, expand=True)
    seen = lies_sideways(tile_image(turned, side=336, max_partition=1))
    if angle in (0, 180):
        assert not seen
    elif sample.stem not in ("sample3", "sample6"):  # few words: their letters stand in columns, too
        assert seen


def test_pictures_too_small_and_empty_are_not_turned() -> None:
    for size in ((1, 1), (400, 8), (336, 336)):
        assert not lies_sideways(
            tile_image(Image.fromarray(np.full((*size, 3), 255, np.uint8)), side=336, max_partition=1)
        )


PLAIN = Manner()


@pytest.mark.parametrize(
    ("found", "options", "angle", "expected"),
    [
        ((), {}, 0, PLAIN),
        (("empty",), {}, 0, Manner(temperature=STIRRED_TEMPERATURE)),
        (("empty",), {"temperature": 0.7}, 0, PLAIN),
        (("empty", "repetition"), {}, 0, Manner(repetition_penalty=FIRM_PENALTY)),
        (("no_table", "truncated"), {}, 0, Manner(temperature=STIRRED_TEMPERATURE, max_new_tokens=400)),
        (("truncated", "schema_mismatch"), {"max_new_tokens": 100}, 0, Manner(tight=True)),
        (("schema_mismatch",), {}, 0, Manner(tight=True)),
        (("empty", "truncated"), {}, 90, Manner(angle=90)),
        (("truncated",), {}, 0, Manner(max_new_tokens=400)),
        (("truncated",), {"max_new_tokens": 100}, 0, PLAIN),
        (("repetition",), {}, 0, Manner(repetition_penalty=FIRM_PENALTY)),
        (("repetition",), {"repetition_penalty": 1.5}, 0, PLAIN),
        (("truncated", "schema_mismatch"), {}, 0, Manner(max_new_tokens=400)),
        (("repetition", "schema_mismatch"), {}, 0, Manner(repetition_penalty=FIRM_PENALTY, tight=True)),
        (("no_table",), {}, 0, Manner(temperature=STIRRED_TEMPERATURE)),
    ],
)
def test_a_second_run_differs_from_the_first_in_what_was_wrong(
    found: Any, options: dict[str, Any], angle: int, expected: Manner
) -> None:
    assert other_manner(TaskOptions(**options), found, angle=angle, limit=100, room=1000, loose=True) == expected


def test_a_schema_without_anything_open_is_not_run_again_in_the_same_manner() -> None:
    assert other_manner(TaskOptions(), ("schema_mismatch",), angle=0, limit=100, room=1000, loose=False) == PLAIN
    assert is_loose(spec("extract", schema={"type": "string"}))
    assert not is_loose(spec("extract", schema={"type": "string", "maxLength": 9}))
    assert not is_loose(spec("chart"))
    assert not is_loose(spec("ocr"))


@pytest.mark.parametrize(
    ("second", "first", "angle", "better"),
    [
        pytest.param((("repetition",), "the " * 90), (("truncated",), "Invoice 4711"), 0, False, id="loop or cut"),
        pytest.param((("truncated",), "Invoice"), (("repetition",), "the " * 90), 0, True, id="cut or loop"),
        pytest.param((("truncated",), "Invoice"), (("truncated",), "Invoice 4711"), 0, False, id="longer"),
        pytest.param((("truncated",), "Invoice 4711"), (("truncated",), "Invoice"), 0, True, id="second is longer"),
        pytest.param((("truncated", "no_table"), "x"), (("empty",), ""), 0, True, id="two small ones or a grave one"),
        pytest.param((("schema_mismatch",), "{"), (("truncated", "schema_mismatch"), "{{"), 0, True, id="fewer"),
        pytest.param(((), "4711"), ((), "a long heap of letters"), 90, True, id="a page that reads better turned"),
        pytest.param((("truncated", "no_table"), "x"), (("repetition",), "x"), 180, False, id="more on a turned page"),
        pytest.param((("repetition",), "x"), (("truncated",), "x"), 180, False, id="worse on a turned page"),
    ],
)
def test_of_two_runs_the_one_with_the_lesser_evil_is_given(second: Any, first: Any, angle: int, better: bool) -> None:
    assert is_better(second, first, angle=angle) is better


def test_a_second_run_stays_within_the_models_context() -> None:
    assert other_manner(TaskOptions(), ("truncated",), angle=0, limit=100, room=150).max_new_tokens == 150
    assert other_manner(TaskOptions(), ("truncated",), angle=0, limit=100, room=100) == PLAIN
