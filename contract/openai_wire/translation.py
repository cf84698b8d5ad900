"""A chat completion as the task that it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from contract.catalogue import CATALOGUE
from contract.errors import InvalidRequest, NotFound
from contract.openai_wire.requests import ChatRequest, ImagePart, JsonObjectFormat, JsonSchemaFormat, Message
from contract.refusals import FieldError, Refused, invalid_body
from contract.requests import TaskRequest
from contract.task import Priority
from contract.task_bodies import TaskBody, inline_files

_PARTITION = re.compile(r"p([1-9][0-9]?)")

#: Options that chat completions have under the same name.
_SAME = ("temperature", "top_p", "top_k", "seed", "repetition_penalty")

#: Where values of a task come from in a chat completion, longer pointers first.
_PLACES = (
    ("/options/max_new_tokens", "/max_tokens"),
    ("/options/schema", "/response_format/json_schema/schema"),
    ("/options/max_partition", "/model"),
    ("/options/logprobs", "/logprobs"),
    ("/options", ""),
    ("/kind", "/model"),
    ("/model", "/model"),
    ("/metadata", "/metadata"),
)


@dataclass
class _Turn:
    """Messages of one role in a row."""

    role: Literal["system", "user", "assistant"]
    texts: list[str] = field(default_factory=list)
    num_images: int = 0

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


@dataclass(frozen=True)
class Translated:
    """A chat completion as a task.

    Attributes:
        body: As ``POST /v1/tasks`` would have read it.
        places: Where each input stands in the messages, as JSON pointers.
    """

    body: TaskBody
    places: tuple[str, ...]

    @contextmanager
    def pointing_back(self) -> Iterator[None]:
        """Errors raised within point into the chat completion."""
        try:
            yield
        except Refused as exc:
            raise _pointed_back(exc, self.places) from exc


def translate(
    chat: ChatRequest, *, deadline_s: int, retention_s: int | None = None, priority: Priority = "high"
) -> Translated:
    """The task that answers a chat completion; pictures stand before the text of their turn, as the models learnt it.

    Args:
        chat: The request.
        deadline_s: How long the task may take, in seconds.
        retention_s: How long it is kept after its end, in seconds; None for the default.
        priority: Its place among the tenant's other tasks.

    Raises:
        Refused: A value isn't allowed; the error points into the chat completion.
    """
    chat.check_extras()
    model, options, is_video = _model(chat.model)
    turns, inputs, places = _turns(chat.messages)
    if is_video and len(inputs) != 1:
        raise Refused.at("/messages", InvalidRequest(f"@video takes one video as image_url; here are {len(inputs)}"))
    system = turns.pop(0).text if turns[0].role == "system" else None
    if not turns or turns[-1].role != "user" or not turns[-1].text.strip():
        raise Refused.at("/messages", InvalidRequest("the last message must be the user's, with text"))
    task: dict[str, Any] = {
        "kind": "video" if is_video else "image" if inputs else "text",
        "model": model,
        "operation": "ask",
        "prompt": turns[-1].text,
        "system": system or None,
        "history": [{"role": turn.role, "text": turn.text, "images": turn.num_images} for turn in turns[:-1]],
        "options": {**options, **_options(chat)},
        "priority": priority,
        "deadline_s": deadline_s,
        "metadata": chat.metadata or {},
    }
    if inputs:
        task["inputs"] = inputs
    if retention_s is not None:
        task["retention_s"] = retention_s
    try:
        request = TaskRequest.model_validate(task)
    except ValidationError as exc:
        raise _pointed_back(invalid_body(exc), tuple(places)) from exc
    try:
        return Translated(TaskBody(request, (), inline_files(request)), tuple(places))
    except Refused as exc:
        raise _pointed_back(exc, tuple(places)) from exc


def _model(alias: str) -> tuple[str, dict[str, Any], bool]:
    """A model's name, the options that its alias stands for, and whether the input is a video."""
    name, *marks = alias.split("@")
    if name not in CATALOGUE:
        raise Refused.at("/model", NotFound("there is no such model; GET /v1/models lists them"))
    options: dict[str, Any] = {}
    for mark in marks:
        partition = _PARTITION.fullmatch(mark)
        if partition:
            options["max_partition"] = int(partition[1])
        elif mark != "video":
            raise Refused.at("/model", NotFound("after @ stands p and most tiles of a picture, as in @p12, or video"))
    return name, options, "video" in marks


def _turns(messages: tuple[Message, ...]) -> tuple[list[_Turn], list[dict[str, Any]], list[str]]:
    """The conversation, its pictures as a task's inputs, and where they stand."""
    turns: list[_Turn] = []
    inputs: list[dict[str, Any]] = []
    places: list[str] = []
    for index, message in enumerate(messages):
        role = "system" if message.role == "developer" else message.role
        if role == "system" and turns and turns[-1].role != "system":
            raise Refused.at(f"/messages/{index}/role", InvalidRequest("system messages come first"))
        if not turns or turns[-1].role != role:
            turns.append(_Turn(role))
        if isinstance(message.content, str):
            turns[-1].texts.append(message.content)
            continue
        for number, part in enumerate(message.content):
            place = f"/messages/{index}/content/{number}"
            if not isinstance(part, ImagePart):
                turns[-1].texts.append(part.text)
                continue
            if role != "user":
                raise Refused.at(place, InvalidRequest("only a user's message comes with pictures"))
            inputs.append(_input(part.image_url.url, f"{place}/image_url/url"))
            places.append(f"{place}/image_url/url")
            turns[-1].num_images += 1
    return turns, inputs, places


def _input(url: str, pointer: str) -> dict[str, Any]:
    """A task's input for an ``image_url``."""
    if url[:5].lower() == "data:":
        head, _, data = url.partition(",")
        media_type, *marks = head[5:].split(";")
        if "base64" not in marks:
            raise Refused.at(pointer, InvalidRequest("a data: URL must be base64: data:image/png;base64,..."))
        return {"base64": data, **({"media_type": media_type} if media_type else {})}
    return {"s3" if url.startswith("s3://") else "url": url}


def _options(chat: ChatRequest) -> dict[str, Any]:
    options: dict[str, Any] = {name: getattr(chat, name) for name in _SAME}
    options["max_new_tokens"] = chat.max_completion_tokens or chat.max_tokens
    options["stop"] = (chat.stop,) if isinstance(chat.stop, str) else chat.stop
    if isinstance(chat.response_format, JsonSchemaFormat):
        options["schema"] = chat.response_format.json_schema.schema_
    elif isinstance(chat.response_format, JsonObjectFormat):
        options["schema"] = {"type": "object"}
    if chat.logprobs:
        options["logprobs"] = chat.top_logprobs or 0
    if chat.stream:
        options["stream"] = True
    return {name: value for name, value in options.items() if value is not None}


def _pointed_back(refused: Refused, places: tuple[str, ...]) -> Refused:
    errors = tuple(
        error if error.parameter else FieldError(detail=error.detail, pointer=_place(error.pointer or "", places))
        for error in refused.errors
    )
    return Refused(refused.error, errors)


def _place(pointer: str, places: tuple[str, ...]) -> str:
    if pointer.startswith("/inputs/"):
        return places[int(pointer.split("/")[2])]
    for there, here in _PLACES:
        if pointer.startswith(there):
            return here + pointer.removeprefix(there)
    return "/messages"
