"""The lines of a batch's files: what a caller asks for, and what is written of each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from contract.batches import ENDPOINT, BatchError
from contract.errors import UnsupportedParameter
from contract.openai_wire.answers import ChatCompletion
from contract.openai_wire.errors import OpenAIError
from contract.openai_wire.requests import ChatRequest
from contract.refusals import Refused, invalid_body

#: Longest ``custom_id``, in characters.
MAX_CUSTOM_ID_CHARS = 512


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    custom_id: Annotated[str, Field(min_length=1, max_length=MAX_CUSTOM_ID_CHARS)]
    method: Literal["POST"]
    url: Literal["/v1/chat/completions"]


class InputLine(_Line):
    """One line as the whole file is checked for: what is asked isn't looked at yet."""

    body: dict[str, JsonValue]

    @property
    def model(self) -> str:
        """The model, as it was asked for."""
        return str(self.body.get("model"))


class ChatLine(_Line):
    """One line with what it asks for."""

    body: ChatRequest


def read_line(text: bytes, number: int) -> InputLine | BatchError:
    """A line's envelope, or why the file can't be run because of it.

    Args:
        text: The line.
        number: Of the line in the file, 1 for the first.
    """
    try:
        return InputLine.model_validate_json(text, strict=True)
    except ValidationError as exc:
        item = exc.errors(include_input=False, include_url=False, include_context=False)[0]
        if item["type"] == "json_invalid":
            return BatchError(code="invalid_json_line", message="this line isn't valid JSON", line=number)
        refused = invalid_body(exc)
        name = str(item["loc"][0]) if item["loc"] else None
        message = f"a line has custom_id, method POST, url {ENDPOINT} and body; {refused}"
        return BatchError(code="invalid_request", message=message, line=number, param=name)


def read_chat(text: bytes) -> ChatRequest:
    """What a line asks for; its envelope has been found right before.

    Raises:
        Refused: A value isn't allowed; the error points into the line's body.
    """
    try:
        chat = ChatLine.model_validate_json(text, strict=True).body
    except ValidationError as exc:
        raise invalid_body(exc, below=1) from exc
    if chat.stream:
        raise Refused.at("/stream", UnsupportedParameter("a batch doesn't stream"))
    return chat


class LineResponse(BaseModel):
    """What the line's request would have been answered."""

    model_config = ConfigDict(frozen=True)
    status_code: int
    request_id: str = Field(description="the line's task")
    body: ChatCompletion | OpenAIError


class UnrunError(BaseModel):
    """Why a line was never answered."""

    model_config = ConfigDict(frozen=True)
    code: Literal["batch_expired", "batch_cancelled"]
    message: str


class OutputLine(BaseModel):
    """A line of the output file, or with an error of the error file."""

    model_config = ConfigDict(frozen=True)
    id: str
    custom_id: str
    response: LineResponse | None = None
    error: UnrunError | None = None
