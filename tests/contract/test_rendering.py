"""What people read of a task of many parts."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from contract.error_info import ErrorInfo
from contract.rendering import PartDocument, as_json, as_markdown, as_text, as_vtt
from contract.units import ClipUnit, PageUnit, SummaryUnit

BROKEN = ErrorInfo(code="truncated_image", detail="the page is damaged", retryable=False)
PAGES = [
    PartDocument(part=0, unit=PageUnit(page=2), text="# Two\n\n| a | b |"),
    PartDocument(part=1, unit=PageUnit(page=3), error=BROKEN),
    PartDocument(part=2, unit=PageUnit(page=7), text="Seven"),
]
CLIPS = [
    PartDocument(part=0, unit=ClipUnit(start_s=0, end_s=59.9996), text=" A dog.\n\n\nIt runs --> away & <barks>. "),
    PartDocument(part=1, unit=ClipUnit(start_s=3600.25, end_s=3661), text=""),
    PartDocument(part=2, unit=SummaryUnit(), text="A film of a dog."),
]


def test_plain_text_has_a_form_feed_between_pages_and_keeps_the_place_of_a_failed_one() -> None:
    assert "".join(as_text(PAGES)) == "# Two\n\n| a | b |\n\f\n\fSeven\n"


def test_markdown_numbers_the_pages_and_says_which_one_failed() -> None:
    assert "".join(as_markdown(PAGES)) == (
        "<!-- page 2 -->\n\n# Two\n\n| a | b |\n\n---\n\n<!-- page 3 failed: truncated_image -->\n\n\n\n---\n\n"
        "<!-- page 7 -->\n\nSeven\n"
    )


def test_json_holds_every_part_with_its_unit_and_error() -> None:
    document = json.loads("".join(as_json({"task_id": "task_1"}, PAGES)))
    assert document["task_id"] == "task_1"
    assert [part["unit"]["page"] for part in document["parts"]] == [2, 3, 7]
    assert document["parts"][1]["error"]["code"] == "truncated_image"
    assert json.loads("".join(as_json({}, [])))["parts"] == []


def test_clips_carry_their_times_in_every_form() -> None:
    first = "[00:00:00.000 - 00:01:00.000] A dog."
    assert "".join(as_text(CLIPS)).startswith(first)
    assert "".join(as_text(CLIPS)).endswith("[01:00:00.250 - 01:01:01.000] \n\nA film of a dog.\n")
    assert "## 00:00:00.000 - 00:01:00.000\n\n" in "".join(as_markdown(CLIPS))
    assert "".join(as_markdown(CLIPS)).endswith("## Summary\n\nA film of a dog.\n")


def test_webvtt_has_a_cue_per_clip_that_says_something() -> None:
    assert "".join(as_vtt(CLIPS)) == (
        "WEBVTT\n\n00:00:00.000 --> 00:01:00.000\nA dog.\nIt runs --&gt; away &amp; &lt;barks&gt;.\n"
    )


def test_a_plain_video_is_one_cue() -> None:
    part = PartDocument(part=0, text="A cat.", start_s=1.5, end_s=4)
    assert "".join(as_vtt([part])) == "WEBVTT\n\n00:00:01.500 --> 00:00:04.000\nA cat.\n"


@given(st.lists(st.text(), max_size=6))
def test_no_text_breaks_the_form_it_is_put_in(texts: list[str]) -> None:
    clips = [
        PartDocument(part=n, unit=ClipUnit(start_s=n, end_s=n + 1), text=text.encode("utf-8", "ignore").decode())
        for n, text in enumerate(texts)
    ]
    cues = "".join(as_vtt(clips))
    assert len(re.findall("-->", cues)) == sum(bool(clip.text.strip()) for clip in clips)
    parts = json.loads("".join(as_json({}, clips)))["parts"]
    assert [part["text"] for part in parts] == [clip.text for clip in clips]
