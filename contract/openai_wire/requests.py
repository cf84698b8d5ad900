"""The body of ``POST /v1/chat/completions``, as OpenAI's clients write it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag

from contract.errors import InvalidRequest, UnsupportedParameter
from contract.refusals import Refused

#: Most messages of one request.
MAX_MESSAGES = 512

#: Parameters of OpenAI's that ask for nothing with these values; with any other they are not supported here.
_NOTHING: dict[str, tuple[JsonValue, ...]] = {
    "audio": (None,),
    "frequency_penalty": (None, 0),
    "function_call": (None, "none"),
    "functions": (None, []),
    "logit_bias": (None, {}),
    "modalities": (None, ["text"]),
    "n": (None, 1),
    "parallel_tool_calls": (None, True, False),
    "prediction": (None,),
    "presence_penalty": (None, 0),
    "reasoning_effort": (None, "none"),
    "service_tier": (None, "auto", "default"),
    "store": (None, False),
    "tool_choice": (None, "none", "auto"),
    "tools": (None, []),
    "verbosity": (None, "medium"),
    "web_search_options": (None,),
}

#: Parameters that say who asks: taken, and not looked at.
_UNREAD = {"user", "safety_identifier", "prompt_cache_key"}

#: Fields of a message that clients send back with what they were answered.
_MESSAGE_NOTHING: dict[str, tuple[JsonValue, ...]] = {
    "annotations": (None, []),
    "audio": (None,),
    "function_call": (None,),
    "refusal": (None,),
    "tool_calls": (None, []),
}


class _Edge(BaseModel):
    """Frozen; what isn't named is looked at by ``check_extras``, so that the error says what isn't supported."""

    model_config = ConfigDict(frozen=True, extra="allow", json_schema_extra={"additionalProperties": False})


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TextPart(_Closed):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ImageUrl(_Closed):
    """Where a picture is."""

    url: str = Field(min_length=1, description="https, a base64 data: URL, or s3://bucket/key")
    detail: Literal["auto", "low", "high"] | None = Field(None, description="not looked at; see the model's aliases")


class ImagePart(_Closed):
    """A picture, or with the alias ``@video`` a video."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


def _content_kind(value: object) -> str:
    return "str" if isinstance(value, str) else "tuple[]"


#: With one error for a value that is neither, or for the part that is wrong.
Content = Annotated[
    Annotated[str, Tag("str")] | Annotated[tuple[Part, ...], Tag("tuple[]")], Discriminator(_content_kind)
]


class Message(_Edge):
    """One message."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content


class TextFormat(_Closed):
    """Plain text."""

    type: Literal["text"]


class JsonObjectFormat(_Closed):
    """Some JSON object."""

    type: Literal["json_object"]


class NamedSchema(_Closed):
    """A JSON Schema."""

    name: str
    schema_: dict[str, JsonValue] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = Field(None, description="not looked at: the answer always follows the schema")


class JsonSchemaFormat(_Closed):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class StreamOptions(_Closed):
    """How a stream is written."""

    include_usage: bool | None = Field(None, description="a last chunk says what the request took")
    include_obfuscation: bool | None = Field(None, description="not looked at")


class ChatRequest(_Edge):
    """What to answer, and how. None stands for this service's default."""

    model: Annotated[str, Field(max_length=256)] = Field(description="a model, or an alias such as ovis2-4b@p12")
    messages: Annotated[tuple[Message, ...], Field(min_length=1, max_length=MAX_MESSAGES)]
    logprobs: bool | None = Field(None, description="whether to tell how likely each token was; not with stream")
    max_completion_tokens: Annotated[int, Field(ge=1, le=32768)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=32768)] | None = None
    metadata: dict[str, str] | None = None
    repetition_penalty: float | None = Field(None, description="not OpenAI's")
    response_format: Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")] | None = (
        None
    )
    seed: int | None = None
    stop: str | tuple[str, ...] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, description="0, the default, takes the most likely token")
    top_k: int | None = Field(None, description="not OpenAI's")
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(None, description="goes with logprobs")
    top_p: float | None = None

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with what the request took."""
        return self.stream_options is not None and self.stream_options.include_usage is True

    def check_extras(self) -> None:
        """Refuse what this service can't do, rather than answer something else.

        Raises:
            Refused: A parameter isn't supported, or isn't with this value.
        """
        if self.top_logprobs and not self.logprobs:
            raise Refused.at("/top_logprobs", InvalidRequest("this goes with logprobs only"))
        if self.logprobs and self.stream:
            raise Refused.at("/logprobs", UnsupportedParameter("logprobs aren't supported with stream"))
        named = {name: value for name, value in self._extras.items() if name not in _UNREAD}
        _check("", named, _NOTHING)
        for index, message in enumerate(self.messages):
            _check(f"/messages/{index}", message.model_extra or {}, _MESSAGE_NOTHING)

    @property
    def _extras(self) -> dict[str, Any]:
        return self.model_extra or {}


def _check(pointer: str, named: dict[str, Any], nothing: dict[str, tuple[JsonValue, ...]]) -> None:
    for name, value in named.items():
        if name not in nothing:
            raise Refused.at(f"{pointer}/{name}"[:200], UnsupportedParameter(f"{name[:64]} isn't supported here"))
        # 1 == True in Python.
        if not any(
            value == allowed and isinstance(value, bool) == isinstance(allowed, bool) for allowed in nothing[name]
        ):
            raise Refused.at(f"{pointer}/{name}", UnsupportedParameter(f"{name} isn't supported here with this value"))
