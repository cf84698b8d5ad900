"""Pages, clips and summaries as parts, and what an estimate says of them."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import av
import numpy as np
import pytest
import redis

from contract import store
from contract.blobs import input_key
from contract.catalogue import CATALOGUE
from contract.errors import NotAnImage
from contract.estimates import Pace, note_pace, pace_key, read_pace
from contract.options import TaskOptions
from contract.redis_io import run
from contract.task import Attempt, ObjectInput, PartResult, TaskSpec, UrlInput, Usage, new_task_id
from contract.units import ClipUnit, PageUnit, Unit
from tests.corpus import pdfs
from tests.workers.one_worker import CARD, READ, RECEIPT, TRUTH, Bench
from workers.captions import Caption, read_captions
from workers.inputs import PartInputs
from workers.leases import Lease
from workers.media.answers import DocumentProbe, PageSize
from workers.media.pool import MediaPool
from workers.readings import Reading
from workers.sizing import estimate, look_for


def pdf_of(text: str, width: int = 300, height: int = 200) -> bytes:
    """A PDF of one page with a text layer, its size in points."""
    content = f"BT /F1 24 Tf 20 150 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Contents 4 0 R "
        b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Courier >> >> >> >>" % (width, height),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
    ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + table + b"trailer << /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(out)


def film_of(seconds: int) -> bytes:
    """A clip of ten frames a second."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(10 * seconds):
            frame = av.VideoFrame.from_ndarray(np.full((240, 320, 3), number % 250, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def part_of(bench: Bench, data: bytes, kind: Any, unit: Unit | None, operation: Any = "ocr", **options: Any) -> Reading:
    """What a worker makes of one part of a planned task."""
    attempt = attempt_of(bench, data, kind, unit, operation, **options)
    return bench.runner.answerer.answer(Lease(attempt), bench.runner.inputs.read(attempt))


def inputs_of(bench: Bench, *args: Any, **options: Any) -> PartInputs:
    """What a part is about; as `part_of`."""
    return bench.runner.inputs.read(attempt_of(bench, *args, **options))


def attempt_of(
    bench: Bench, data: bytes, kind: Any, unit: Unit | None, operation: Any = "ocr", **options: Any
) -> Attempt:
    task_id = new_task_id()
    key = input_key("acme", task_id, 0)
    bench.blobs.put(key, data, "application/octet-stream")
    spec = TaskSpec(
        kind=kind,
        model=CARD.name,
        operation=operation,
        prompt=READ,
        hint_prompt="It says: {text}",
        inputs=(ObjectInput(bucket=bench.blobs.bucket, key=key),),
        options=TaskOptions(**options),
    )
    return Attempt(
        token=task_id, task_id=task_id, tenant="acme", part=0, number=1, claims=1, queued_ms=0, spec=spec, unit=unit
    )


@pytest.mark.parametrize(("text_layer", "source"), [("only", "text_layer"), ("hint", "model"), ("ignore", "model")])
def test_a_pages_own_text_is_the_answer_a_hint_or_nothing(bench: Bench, text_layer: Any, source: str) -> None:
    reading = part_of(
        bench, pdf_of("TOTAL 9.50"), "document", PageUnit(page=1), text_layer=text_layer, max_new_tokens=40
    )
    assert reading.source == source
    assert reading.usage.pages == 1
    assert reading.usage.images == 0
    if source == "text_layer":
        assert reading.text.strip() == "TOTAL 9.50"
        assert reading.usage.visual_tokens == 0
    plain = part_of(bench, pdf_of("TOTAL 9.50"), "document", PageUnit(page=1), max_new_tokens=1)
    assert (reading.usage.prompt_tokens > plain.usage.prompt_tokens) == (text_layer == "hint")


def test_a_page_without_text_of_its_own_is_read(bench: Bench) -> None:
    reading = part_of(bench, RECEIPT.read_bytes(), "document", PageUnit(page=1), text_layer="only")
    assert (reading.source, reading.text) == ("model", TRUTH)


def test_a_clip_is_looked_at_within_its_times(bench: Bench) -> None:
    unit = ClipUnit(start_s=1.0, end_s=3.0)
    reading = part_of(bench, film_of(4), "video", unit, "caption", num_frames=2, max_new_tokens=5)
    assert (reading.start_s, reading.end_s) == (1.0, 3.0)
    assert (reading.usage.frames, reading.usage.tiles, reading.usage.visual_tokens) == (2, 2, 2 * 576)


def test_a_whole_video_says_what_was_looked_at(bench: Bench) -> None:
    reading = part_of(bench, film_of(4), "video", None, "caption", num_frames=2, start_s=2.0, max_new_tokens=5)
    assert reading.start_s == 2.0
    assert reading.end_s == 4.0, "the clip's end, not its last frame that was looked at"


@pytest.mark.parametrize(
    ("options", "stretch"),
    [
        ({"end_s": 86_400.0}, (0.0, 2.0)),
        ({"end_s": 1.5}, (0.0, 1.5)),
        ({"num_frames": 1}, (0.0, 2.0)),
        ({"start_s": 1.0, "end_s": 2.5}, (1.0, 2.0)),
    ],
    ids=["a day", "within", "one frame", "both"],
)
def test_the_stretch_of_a_film_ends_with_it(
    bench: Bench, options: dict[str, float], stretch: tuple[float, float]
) -> None:
    inputs = inputs_of(bench, film_of(2), "video", None, "caption", **options)
    assert (inputs.start_s, inputs.end_s) == stretch


def test_a_summary_is_asked_over_captions_cut_to_fit(bench: Bench) -> None:
    spec = TaskSpec(kind="video", model=CARD.name, operation="caption", prompt="p", summary_prompt="Sum {captions}")
    spec = spec.model_copy(update={"options": TaskOptions(max_new_tokens=5)})
    attempt = Attempt(token="t", task_id="t", tenant="acme", part=9, number=1, claims=1, queued_ms=0, spec=spec)
    captions = tuple(Caption(60.0 * n, 60.0 * n + 60, f"clip {n} " + "word " * 400) for n in range(9))
    short = bench.runner.answerer.answer(Lease(attempt), PartInputs(captions=captions[:1]))
    cut = bench.runner.answerer.answer(Lease(attempt), PartInputs(captions=captions))
    assert "captions_cut" not in short.warnings
    assert "captions_cut" in cut.warnings
    assert 2000 < cut.usage.prompt_tokens <= 4096


def test_a_long_films_captions_are_summed_up_in_stages(bench: Bench) -> None:
    spec = TaskSpec(kind="video", model=CARD.name, operation="caption", prompt="p", summary_prompt="Sum {captions}")
    spec = spec.model_copy(update={"options": TaskOptions(max_new_tokens=5)})
    attempt = Attempt(token="t", task_id="t", tenant="acme", part=9, number=1, claims=1, queued_ms=0, spec=spec)
    captions = tuple(Caption(n, n + 1.0, f"clip {n} " + "word " * 60) for n in range(80))
    reading = bench.runner.answerer.answer(Lease(attempt), PartInputs(captions=captions))
    assert {"summary_in_stages", "captions_cut"} <= set(reading.warnings)
    assert reading.finish_reason is not None
    assert reading.usage.prompt_tokens > CARD.context_tokens, "every caption was read in some stage"


def test_captions_of_clips_are_read_back_in_order(bench: Bench) -> None:
    key = store.task_key("task_x")
    for part in (0, 2):  # clip 1 failed
        blob = f"results/acme/task_x/attempt-1/{part}.json"
        result = PartResult(
            text="inline" if part else None,
            finish_reason="stop",
            blob_key=blob,
            usage=Usage(),
            start_s=60.0 * part,
            end_s=60.0 * part + 60,
        )
        bench.blobs.put(blob, json.dumps({"text": "from S3"}).encode(), "application/json")
        bench.client.hset(key, f"p{part}:result", result.model_dump_json())
    lines = [caption.line(100) for caption in read_captions(bench.client, bench.blobs, "task_x", 3)]
    assert lines == ["[00:00:00 to 00:01:00] from S3", "[00:02:00 to 00:03:00] inline"]


@pytest.mark.parametrize("model", ["ovis2-4b", "ovis1.6-gemma2-9b", "ovis2-reader"])
@pytest.mark.parametrize("size", [(300, 200), (595, 842), (842, 595), (200, 1600), (60, 40), (2000, 3000)])
def test_the_estimate_of_a_page_counts_the_tiles_that_it_is_cut_into(
    bench: Bench, media: MediaPool, model: str, size: tuple[int, int]
) -> None:
    card = CATALOGUE[model]
    bench.blobs.put("uploads/page.pdf", pdf_of("TOTAL 9.50", *size), "application/pdf")
    url = bench.blobs.presigned_get(bench.blobs.bucket, "uploads/page.pdf")
    source = ObjectInput(bucket=bench.blobs.bucket, key="uploads/page.pdf")
    spec = TaskSpec(kind="document", model=model, operation="ocr", prompt="p", inputs=(source,))
    guessed = estimate(spec, card, [media.probe(url, trusted=True)], Pace(), max_parts=10)
    partition = spec.max_partition(card)
    cut = media.prepare(url, trusted=True, side=card.tile_side, max_partition=partition, page=1).image
    assert (guessed.parts, guessed.pages, guessed.tiles) == (1, 1, len(cut.tiles))
    assert guessed.visual_tokens == len(cut.tiles) * card.tokens_per_tile
    assert (guessed.expected_seconds, guessed.expected_output_tokens) == (None, None)


def test_the_estimate_of_pages_with_text_is_what_they_take(bench: Bench, media: MediaPool) -> None:
    data = pdfs.written([["one"], [], ["three"], ["four"], []])
    bench.blobs.put("uploads/mixed.pdf", data, "application/pdf")
    source = ObjectInput(bucket=bench.blobs.bucket, key="uploads/mixed.pdf")
    options = TaskOptions(text_layer="only", pages="2-")
    spec = TaskSpec(kind="document", model=CARD.name, operation="ocr", prompt="p", inputs=(source,), options=options)
    url = bench.blobs.presigned_get(source.bucket, source.key)
    probe = media.probe(url, trusted=True, look=look_for(spec))
    pace = Pace(parts=1, output_tokens=7, cost=100, seconds=5)
    guessed = estimate(spec, CARD, [probe], pace, max_parts=10)

    pages = [inputs_of(bench, data, "document", PageUnit(page=page), text_layer="only") for page in (2, 3, 4, 5)]
    taken = [len(image.tiles) for page in pages for image in page.images]
    assert len(taken) == 2
    assert (guessed.parts, guessed.pages, guessed.tiles) == (4, 4, sum(taken))
    assert guessed.max_output_tokens == 2 * spec.max_new_tokens(CARD)
    assert guessed.expected_output_tokens == 2 * 7


def test_pages_that_were_not_looked_at_count_as_the_others_do_on_average() -> None:
    own_text = (True, None, False, None, True, None, True, None)  # a quarter without
    probe = DocumentProbe("pdf", (PageSize(72, 72),) * 8, own_text)
    source = UrlInput(url="https://example.com/file.pdf")
    options = TaskOptions(text_layer="only", max_partition=1)
    spec = TaskSpec(kind="document", model=CARD.name, operation="ocr", prompt="p", inputs=(source,), options=options)
    guessed = estimate(spec, CARD, [probe], Pace(), max_parts=10)
    assert (guessed.pages, guessed.tiles) == (8, 2)
    unread = replace(probe, own_text=(None,) * 8)
    assert estimate(spec, CARD, [unread], Pace(), max_parts=10).tiles == 8


@pytest.mark.parametrize("format", ["pdf", "office", "zip"])
def test_a_document_is_no_picture_to_an_estimate(format: Any) -> None:
    source = UrlInput(url="https://example.com/file")
    spec = TaskSpec(kind="image", model=CARD.name, operation="ocr", prompt="p", inputs=(source,))
    with pytest.raises(NotAnImage):
        estimate(spec, CARD, [DocumentProbe(format, (PageSize(72, 72),))], Pace(), max_parts=10)


@pytest.mark.parametrize(
    ("options", "frames", "parts"),
    [
        ({}, 12, 1),
        ({"fps": 2.0}, 8, 1),
        ({"num_frames": 3, "start_s": 1.0, "end_s": 2.0}, 3, 1),
        ({"num_frames": 2, "clip_s": 2.0}, 4, 3),
    ],
    ids=["default", "rate", "stretch", "clips"],
)
def test_the_estimate_of_a_video_counts_its_frames(
    bench: Bench, media: MediaPool, options: dict[str, Any], frames: int, parts: int
) -> None:
    bench.blobs.put("uploads/film.mp4", film_of(4), "video/mp4")
    url = bench.blobs.presigned_get(bench.blobs.bucket, "uploads/film.mp4")
    source = ObjectInput(bucket=bench.blobs.bucket, key="uploads/film.mp4")
    spec = TaskSpec(
        kind="video",
        model=CARD.name,
        operation="caption",
        prompt="p",
        inputs=(source,),
        options=TaskOptions(**options),
    )
    pace = Pace(parts=2, output_tokens=20, cost=100, seconds=5)
    guessed = estimate(spec, CARD, [media.probe(url, trusted=True)], pace, max_parts=10)
    assert (guessed.frames, guessed.tiles, guessed.parts) == (frames, frames, parts)
    assert guessed.expected_output_tokens == 10 * parts
    assert guessed.expected_seconds == round(0.05 * (576 * frames + 10 * parts), 3)


def test_the_pace_of_a_model_fades(client: redis.Redis) -> None:
    for _ in range(1200):
        run(client, note_pace(CARD.name, Usage(visual_tokens=90, output_tokens=10, gpu_seconds=0.5)))
    pace = read_pace(client.hgetall(pace_key(CARD.name)))
    assert 250 <= pace.parts <= 501
    assert pace.output_of(3, 1000) == 30
    assert pace.seconds_of(1000) == pytest.approx(5.0, rel=0.02)
