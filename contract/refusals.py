"""A request refused because of some values of it, and where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.errors import FleetError, InvalidRequest, MalformedRequest

T = TypeVar("T", bound=BaseModel)

#: Wrong values that are named in one answer; a body can hold any number of them.
MAX_FIELD_ERRORS = 20

#: Characters of a pointer that are shown; the caller chose the names in it.
_MAX_POINTER_CHARS = 200


class FieldError(BaseModel):
    """One wrong value and where it stands."""

    model_config = ConfigDict(frozen=True)
    detail: str
    pointer: str | None = Field(None, description="JSON pointer into the body")
    parameter: str | None = Field(None, description="name of the query parameter or header")


class Refused(Exception):
    """A request that an error of the contract refuses because of some values of it.

    Args:
        error: What is wrong.
        errors: Where.
    """

    def __init__(self, error: FleetError, errors: tuple[FieldError, ...]) -> None:
        super().__init__(str(error))
        self.error = error
        self.errors = errors

    @classmethod
    def at(cls, pointer: str, error: FleetError) -> Refused:
        """Because of the value at a JSON pointer into the body."""
        return cls(error, (FieldError(detail=str(error), pointer=pointer),))

    @classmethod
    def parameter(cls, name: str, error: FleetError) -> Refused:
        """Because of a query parameter or a header."""
        return cls(error, (FieldError(detail=str(error), parameter=name),))


def parse_json(text: bytes, model: type[T]) -> T:
    """JSON text as ``model``.

    Raises:
        MalformedRequest: It isn't JSON.
        Refused: A value isn't allowed.
    """
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as exc:
        if any(item["type"] == "json_invalid" for item in exc.errors(include_input=False, include_context=False)):
            raise MalformedRequest("the body isn't valid JSON") from exc
        raise invalid_body(exc) from exc


def invalid_body(error: ValidationError, *, below: int = 0) -> Refused:
    """What pydantic found in a body: pointers and messages, never the values.

    Args:
        error: What it found.
        below: Steps from what pydantic read down to the body.
    """
    items = error.errors(include_input=False, include_url=False, include_context=False)
    errors = tuple(
        FieldError(detail=field_message(item["type"], item["msg"]), pointer=json_pointer(item["loc"][below:]))
        for item in items[:MAX_FIELD_ERRORS]
    )
    return Refused(InvalidRequest(f"{errors[0].pointer or 'the body'}: {errors[0].detail}"), errors)


def json_pointer(loc: Sequence[int | str]) -> str:
    """A JSON pointer (RFC 6901) to where pydantic's ``loc`` leads."""
    tokens = [str(part).replace("~", "~0").replace("/", "~1") for part in loc if part != "[key]"]
    return "".join(f"/{token}" for token in tokens)[:_MAX_POINTER_CHARS]


def field_message(kind: str, message: str) -> str:
    """What pydantic says of a value, in our words."""
    if kind == "extra_forbidden":
        return "not a field that this version accepts"
    return message.removeprefix("Value error, ")
