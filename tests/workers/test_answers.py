"""Parts from claim to commit: checks, second runs, schemas, the cache."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from contract import store
from contract.events import EventBody, events_key
from contract.json_schemas import follows
from contract.task import PastTurn, TaskSpec
from ovis_engine import TiledImage, Turn
from tests.workers.one_worker import CARD, RECEIPT, TRUTH, Bench
from workers.inputs import PartInputs
from workers.questions import build_request
from workers.result_cache import question_key
from workers.revision import checkpoint_revision
from workers.sweep import sweep_orphans


def test_a_page_is_read_once_where_nothing_is_doubtful(bench: Bench) -> None:
    result = bench.answer(RECEIPT)
    assert (result.text, result.source, result.warnings) == (TRUTH, "model", ())
    assert (result.usage.images, result.usage.tiles, result.usage.visual_tokens) == (1, 1, 576)


@pytest.mark.parametrize("angle", [90, 270])
def test_a_page_on_its_side_is_turned_and_read(bench: Bench, angle: int) -> None:
    lying = Image.open(RECEIPT).rotate(angle, expand=True)  # counterclockwise
    result = bench.answer(lying)
    assert result.text == TRUTH
    assert {"second_run", f"rotated_{angle}"} <= set(result.warnings)
    # One plain run, three glances, one run of the turned page.
    assert (result.usage.images, result.usage.tiles) == (1, 5)


def test_a_page_on_its_side_is_left_as_it_is_where_nothing_is_read(bench: Bench) -> None:
    lying = Image.open(RECEIPT).rotate(90, expand=True)
    result = bench.answer(lying, operation="caption")
    assert not any(word.startswith("rotated") for word in result.warnings)


def test_a_blank_page_costs_no_run_and_gives_no_text(bench: Bench) -> None:
    steps = bench.runner.answerer.generator.engine.stats().steps
    result = bench.answer(Image.new("RGB", (300, 400), "white"), operation="markdown")
    assert (result.text, result.source, result.finish_reason) == ("", "blank", None)
    assert (result.usage.images, result.usage.visual_tokens, result.usage.gpu_seconds) == (1, 0, 0.0)
    assert bench.runner.answerer.generator.engine.stats().steps == steps


def test_a_blank_picture_may_be_asked_about(bench: Bench) -> None:
    assert bench.answer(Image.new("RGB", (300, 400), "white"), operation="caption").source == "model"


def test_an_output_that_the_caller_bounded_is_cut_there_and_says_so(bench: Bench) -> None:
    result = bench.answer(RECEIPT, max_new_tokens=5)
    assert (result.finish_reason, result.warnings, result.usage.output_tokens) == ("length", ("truncated",), 5)


def test_a_stop_string_ends_the_text_before_it(bench: Bench) -> None:
    words = TRUTH.split()
    result = bench.answer(RECEIPT, stop=(words[2],))
    assert result.text == TRUTH[: TRUTH.index(words[2])]


def test_sampling_with_a_seed_says_the_same_twice(bench: Bench) -> None:
    hot = {"temperature": 2.0, "max_new_tokens": 20}
    first, again, other = (bench.answer(RECEIPT, **hot, seed=seed).text for seed in (1, 1, 2))
    assert first == again != other


AMOUNT = {"type": "string", "pattern": r"^[0-9]{1,3}\.[0-9]{2}$"}
RECEIPT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "shop": {"type": "string", "maxLength": 12},
        "items": {
            "type": "array",
            "maxItems": 2,
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 8}, "price": AMOUNT},
                "required": ["name", "price"],
                "additionalProperties": False,
            },
        },
        "paid": {"enum": ["cash", "card"]},
    },
    "required": ["shop", "items", "paid"],
    "additionalProperties": False,
}


def draw_receipt(seed: int) -> Image.Image:
    """A receipt with a shop, a few lines and a sum, drawn from ``seed``."""
    words, font = random.Random(seed), ImageFont.load_default(16)
    page = Image.new("RGB", (336, 336), "white")
    lines = [f"SHOP {seed}", *(f"ITEM{n} {words.randint(100, 9999) / 100:.2f}" for n in range(words.randint(1, 5)))]
    ImageDraw.Draw(page).text((10, 10), "\n".join(lines), fill="black", font=font)
    return page


def all_follow(bench: Bench, count: int) -> None:
    for seed in range(count):
        result = bench.answer(draw_receipt(seed), operation="extract", schema=RECEIPT_SCHEMA)
        assert follows(RECEIPT_SCHEMA, result.data)
        assert json.loads(result.text or "") == result.data
        assert "schema_mismatch" not in result.warnings


def test_receipts_give_data_that_follows_the_schema(bench: Bench) -> None:
    all_follow(bench, 4)


@pytest.mark.slow
def test_a_hundred_receipts_give_data_that_follows_the_schema(bench: Bench) -> None:
    all_follow(bench, 100)


def test_data_that_is_cut_short_is_not_given(bench: Bench) -> None:
    schema = {"type": "array", "minItems": 40, "items": {"type": "string", "minLength": 12}}
    result = bench.answer(RECEIPT, operation="extract", schema=schema, max_new_tokens=30)
    assert result.data is None
    assert {"truncated", "schema_mismatch", "second_run"} <= set(result.warnings)


def test_an_output_cut_short_by_the_models_default_gets_a_longer_second_run(bench: Bench) -> None:
    schema = {
        "type": "array",
        "minItems": 30,
        "maxItems": 30,
        "items": {"type": "string", "minLength": 9, "maxLength": 9},
    }
    result = bench.answer(RECEIPT, operation="extract", schema=schema)
    assert follows(schema, result.data)
    assert result.warnings == ("second_run",)
    assert result.usage.output_tokens > 2 * CARD.default_max_new_tokens


def test_what_the_engine_refuses_fails_the_task_with_its_reason(bench: Bench) -> None:
    task_id = bench.submit(bench.put(RECEIPT, RECEIPT, RECEIPT, RECEIPT, RECEIPT), max_new_tokens=2000)
    assert bench.runner.run_next() == "failed"
    error = json.loads(str(bench.client.hget(store.task_key(task_id), "error")))
    assert error["code"] == "context_too_long"


def test_the_same_question_is_answered_from_the_cache_without_the_engine(bench: Bench) -> None:
    first = bench.answer(RECEIPT, cache_s=60)
    steps = bench.runner.answerer.generator.engine.stats().steps
    again = bench.answer(RECEIPT, cache_s=60)
    assert (first.source, again.source) == ("model", "cache")
    assert (again.text, again.finish_reason, again.warnings) == (first.text, first.finish_reason, first.warnings)
    assert (again.usage.images, again.usage.visual_tokens, again.usage.gpu_seconds) == (1, 0, 0.0)
    assert bench.runner.answerer.generator.engine.stats().steps == steps


@pytest.mark.parametrize(
    "other",
    [{"tenant": "other"}, {"operation": "markdown"}, {"max_new_tokens": 300}, {"cache_s": None}],
    ids=["tenant", "operation", "options", "no wish"],
)
def test_another_question_is_not(bench: Bench, other: dict[str, Any]) -> None:
    bench.answer(RECEIPT, cache_s=60)
    assert bench.answer(RECEIPT, **{"cache_s": 60, **other}).source == "model"


def test_an_answer_older_than_the_caller_accepts_is_not_given(bench: Bench) -> None:
    bench.answer(RECEIPT, cache_s=60)
    [pointer] = bench.client.keys("ovis:cache:*")
    assert 0 < bench.client.pttl(pointer) <= 60_000
    bench.client.decrby(pointer, 30_000)
    assert bench.answer(RECEIPT, cache_s=20).source == "model"


def test_an_entry_without_its_object_is_no_answer(bench: Bench) -> None:
    bench.answer(RECEIPT, cache_s=60)
    bench.blobs.delete_prefix("cache/")
    assert bench.answer(RECEIPT, cache_s=60).source == "model"


def test_answers_past_their_time_are_swept(bench: Bench) -> None:
    bench.answer(RECEIPT, cache_s=60)
    sweep_orphans(bench.client, bench.blobs, min_age_s=0)
    assert len(list(bench.blobs.list_tasks("cache"))) == 1
    bench.client.delete(*bench.client.keys("ovis:cache:*"))
    sweep_orphans(bench.client, bench.blobs, min_age_s=3600)
    assert len(list(bench.blobs.list_tasks("cache"))) == 1
    sweep_orphans(bench.client, bench.blobs, min_age_s=0)
    assert list(bench.blobs.list_tasks("cache")) == []


def test_another_checkpoint_is_another_question(tmp_path: Path) -> None:
    spec = TaskSpec(kind="text", model=CARD.name, operation="ask", prompt="p")
    keys = set()
    for weights in (b"a", b"b"):
        (tmp_path / "model.safetensors").write_bytes(weights * (70 << 20))
        keys.add(question_key(spec, PartInputs(), checkpoint_revision(tmp_path)))
    (tmp_path / "config.json").write_text("{}")
    keys.add(question_key(spec, PartInputs(), checkpoint_revision(tmp_path)))
    assert len(keys) == 3


def told(bench: Bench, task_id: str) -> str:
    """What followers of a task have read, piece after piece."""
    entries = bench.client.xrange(events_key(task_id))
    bodies = [EventBody.model_validate_json(fields["event"]) for _, fields in entries]
    text = ""
    for body in bodies:
        if body.kind == "delta":
            assert body.offset == len(text)
            text += body.text or ""
    return text


def test_a_streamed_part_tells_its_whole_text_while_it_is_written(bench: Bench) -> None:
    task_id = bench.submit(bench.put(RECEIPT), stream=True)
    assert bench.runner.run_next() == "succeeded"
    assert told(bench, task_id) == TRUTH


def test_a_part_that_is_not_streamed_tells_nothing_of_its_text(bench: Bench) -> None:
    task_id = bench.submit(bench.put(RECEIPT))
    assert bench.runner.run_next() == "succeeded"
    assert told(bench, task_id) == ""


def test_what_was_streamed_is_not_taken_back_by_a_second_run(bench: Bench) -> None:
    # Without streaming the same page is turned and read.
    result = bench.answer(Image.open(RECEIPT).rotate(90, expand=True), stream=True)
    assert "second_run" not in result.warnings
    assert not any(word.startswith("rotated") for word in result.warnings)


def test_who_wants_no_second_run_pays_for_none(bench: Bench) -> None:
    page = Image.open(RECEIPT).rotate(90, expand=True)
    usual, once = bench.answer(page), bench.answer(page, second_run=False)
    assert "second_run" in usual.warnings
    assert "second_run" not in once.warnings
    assert once.usage.output_tokens < usual.usage.output_tokens


def test_an_answer_in_words_may_be_held_to_a_schema(bench: Bench) -> None:
    result = bench.answer(draw_receipt(1), operation="ask", schema=RECEIPT_SCHEMA)
    assert follows(RECEIPT_SCHEMA, result.data)


def test_what_was_said_before_stands_before_the_prompt_with_its_own_pictures() -> None:
    first, second = (TiledImage(1, 1, 2, 2, 336, (np.full((2, 2, 3), shade, np.uint8),)) for shade in (0, 255))
    history = (PastTurn(role="user", text="What is this?", images=1), PastTurn(role="assistant", text="A dot."))
    spec = TaskSpec(
        kind="image", model=CARD.name, operation="ask", prompt="And this?", system="Be brief.", history=history
    )
    request = build_request(spec, PartInputs(images=(first, second)), CARD, request_id="r")
    assert request.turns == (
        Turn("system", ("Be brief.",)),
        Turn("user", (first, "\nWhat is this?")),
        Turn("assistant", ("A dot.",)),
        Turn("user", (second, "\nAnd this?")),
    )
