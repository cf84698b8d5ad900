"""What a chat completion's task gave, as OpenAI's clients read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from contract.errors import DeadlineExceeded, FleetError, InternalError, WrongStatus, all_errors
from contract.record import TaskRecord
from contract.results import FinishReason, LikelyToken, TokenLogprob
from contract.task import TaskStatus, Usage

Finish = Literal["stop", "length"]


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


@dataclass(frozen=True)
class Answer:
    """What a task gave, as far as a completion shows it."""

    text: str
    logprobs: tuple[TokenLogprob, ...] | None = None


class TokenUsage(_View):
    """What a completion took, in tokens."""

    prompt_tokens: int = Field(description="visual ones included")
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, usage: Usage | None) -> TokenUsage:
        """The view of a task's usage."""
        used = usage or Usage()
        return cls(
            prompt_tokens=used.prompt_tokens,
            completion_tokens=used.output_tokens,
            total_tokens=used.prompt_tokens + used.output_tokens,
        )


class AnswerMessage(_View):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class LikelyTokenView(_View):
    """A token and how likely it was."""

    token: str
    bytes: tuple[int, ...] | None = Field(description="of its text in UTF-8; null where it is a piece of a character")
    logprob: float

    @classmethod
    def of(cls, told: LikelyToken) -> LikelyTokenView:
        """The view of a token."""
        return cls(token=told.token, bytes=_bytes(told.token), logprob=told.logprob)


class TokenView(LikelyTokenView):
    """A token of the answer."""

    top_logprobs: tuple[LikelyTokenView, ...]


class Logprobs(_View):
    """How likely the answer's tokens were."""

    content: tuple[TokenView, ...]
    refusal: None = None

    @classmethod
    def of(cls, told: tuple[TokenLogprob, ...]) -> Logprobs:
        """The view of an answer's tokens."""
        return cls(
            content=tuple(
                TokenView(
                    token=entry.token,
                    bytes=_bytes(entry.token),
                    logprob=entry.logprob,
                    top_logprobs=tuple(map(LikelyTokenView.of, entry.top)),
                )
                for entry in told
            )
        )


class Choice(_View):
    """The one answer."""

    index: Literal[0] = 0
    message: AnswerMessage
    finish_reason: Finish = Field(description="length, too, where the text went round in circles and was ended")
    logprobs: Logprobs | None = None


class ChatCompletion(_View):
    """A whole answer."""

    id: str = Field(description="chatcmpl- and the digits of the task's id")
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(description="Unix time, in seconds")
    model: str = Field(description="as it was asked for")
    choices: tuple[Choice]
    usage: TokenUsage

    @classmethod
    def of(cls, record: TaskRecord, model: str, answer: Answer) -> ChatCompletion:
        """The answer of a task that has succeeded."""
        choice = Choice(
            message=AnswerMessage(content=answer.text),
            finish_reason=finish_of(record),
            logprobs=None if answer.logprobs is None else Logprobs.of(answer.logprobs),
        )
        return cls(
            id=completion_id(record),
            created=record.created_ms // 1000,
            model=model,
            choices=(choice,),
            usage=TokenUsage.of(record.usage),
        )


class Piece(_View):
    """What a chunk adds to the answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(_View):
    """The one answer's next piece."""

    index: Literal[0] = 0
    delta: Piece
    finish_reason: Finish | None = None


class Chunk(_View):
    """A piece of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: tuple[ChunkChoice, ...] = ()
    usage: TokenUsage | None = None


def answer_in(record: TaskRecord) -> Answer | None:
    """What a succeeded task's record says; None where the stored document has to be read."""
    assert record.result is not None
    if record.result.text is None or record.spec.options.logprobs is not None:
        return None
    return Answer(record.result.text)


def answer_of(document: Mapping[str, Any]) -> Answer:
    """What a stored document says."""
    told = document.get("logprobs")
    return Answer(str(document["text"]), None if told is None else _told.validate_python(told))


def completion_id(record: TaskRecord) -> str:
    """The completion's id."""
    return f"chatcmpl-{record.id.removeprefix('task_')}"


def finish_of(record: TaskRecord) -> Finish:
    """Why the answer ended, in OpenAI's words."""
    reason: FinishReason | None = record.result.finish_reason if record.result else None
    return "length" if reason in ("length", "repetition") else "stop"


def why_none(record: TaskRecord) -> FleetError | None:
    """Why a task that has ended gave no answer; None where it gave one."""
    if record.status is TaskStatus.SUCCEEDED:
        return None
    if record.status is TaskStatus.EXPIRED:
        return DeadlineExceeded("the answer wasn't there in time")
    if record.error is None:
        return WrongStatus(f"the task of this completion is {record.status}")
    kind = all_errors().get(record.error.code, InternalError)
    return kind(record.error.detail)


def _bytes(token: str) -> tuple[int, ...] | None:
    return None if "\ufffd" in token else tuple(token.encode())


_told: TypeAdapter[tuple[TokenLogprob, ...]] = TypeAdapter(tuple[TokenLogprob, ...])
