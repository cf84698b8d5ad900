"""How a task is run: every option, with its bounds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

TextLayer = Literal["ignore", "hint", "only"]
TableFormat = Literal["markdown", "html", "csv"]

#: Longest time for which an answer may be kept for the same question, in seconds: 30 days.
MAX_CACHE_S = 30 * 86_400

#: Most frames of one video or clip.
MAX_FRAMES = 256

#: Latest moment of a video that may be named, in seconds: a day.
MAX_VIDEO_S = 86_400.0

_StopString = Annotated[str, Field(min_length=1, max_length=256)]
_Moment = Annotated[float, Field(ge=0, le=MAX_VIDEO_S, allow_inf_nan=False)]


class TaskOptions(BaseModel):
    """How a task is run. None stands for the operation's or the model's default.

    Which options go with which kinds and operations is checked by the gateway.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    max_partition: Annotated[int, Field(ge=1, le=64)] | None = Field(
        None, description="most tiles that a picture is cut into; a thumbnail comes on top"
    )
    max_new_tokens: Annotated[int, Field(ge=1, le=32768)] | None = None

    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] | None = Field(
        None, description="0, the default, takes the most likely token"
    )
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(None, description="0 keeps all")
    repetition_penalty: Annotated[float, Field(ge=0.1, le=10, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    stop: Annotated[tuple[_StopString, ...], Field(max_length=16)] | None = Field(
        None, description="the text ends before the first of these"
    )
    cot: bool = Field(False, description="ask: reason step by step first")

    # The schema is checked as a whole before a task is accepted: contract.json_schemas.
    json_schema: dict[str, JsonValue] | None = Field(
        None, alias="schema", description="extract, which needs it, and ask: the JSON Schema that the data follows"
    )
    table_format: TableFormat | None = Field(None, description="table: form of the text; markdown unless given")

    pages: Annotated[str, Field(max_length=1000, pattern=r"^[0-9, -]+$")] | None = Field(
        None, description="document: which pages", examples=["1-20", "1,3,5-"]
    )
    text_layer: TextLayer | None = Field(None, description="document: what to do with a PDF's own text")
    on_page_failure: Literal["succeed", "fail"] = Field(
        "succeed", description="how a document ends of which some pages failed"
    )

    num_frames: Annotated[int, Field(ge=1, le=MAX_FRAMES)] | None = Field(
        None, description="video: frames, evenly spread; 12 unless given. With clip_s: of each clip"
    )
    fps: Annotated[float, Field(gt=0, le=120, allow_inf_nan=False)] | None = Field(
        None, description="video: frames per second, instead of num_frames"
    )
    start_s: _Moment | None = None
    end_s: _Moment | None = None
    clip_s: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] | None = Field(
        None, description="video: cut into clips of this many seconds, then summarised"
    )

    logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(
        None, description="ask: how likely each token of the answer was, beside so many of the most likely ones"
    )

    second_run: bool = Field(True, description="run a part once more, in another manner, whose answer is doubtful")
    stream: bool = Field(
        False, description="tell those who follow the task what its parts write; no part is run a second time then"
    )
    cache_s: Annotated[int, Field(ge=1, le=MAX_CACHE_S)] | None = Field(
        None, description="accept an answer to the same question that is no older, and keep this one for as long"
    )
