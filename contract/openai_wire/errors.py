"""Errors as OpenAI's clients read them."""

from __future__ import annotations

import re
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field

from contract.error_info import ErrorInfo

#: What pydantic puts into a place where a field has several types; the tag of a part it puts before the tag's field.
_ALTERNATIVE = re.compile(r"str|tuple\[.*")

_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ErrorBody(BaseModel):
    """What is wrong."""

    model_config = ConfigDict(frozen=True)
    message: str
    type: str
    param: str | None = Field(None, description="the parameter that is wrong")
    code: str = Field(description="stable; see the table of errors")


class OpenAIError(BaseModel):
    """An error in OpenAI's form."""

    model_config = ConfigDict(frozen=True)
    error: ErrorBody

    @classmethod
    def of(cls, info: ErrorInfo, status: int, pointer: str | None = None) -> OpenAIError:
        """The form of an error.

        Args:
            info: The error.
            status: Its HTTP status, by which OpenAI tells kinds apart.
            pointer: JSON pointer to the value that is wrong.
        """
        kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
        return cls(error=ErrorBody(message=info.detail, type=kind, param=parameter(pointer), code=info.code))


def parameter(pointer: str | None) -> str | None:
    """A JSON pointer as OpenAI names parameters: ``messages[0].content``."""
    if not pointer:
        return None
    words = [word for word in pointer.removeprefix("/").split("/") if not _ALTERNATIVE.fullmatch(word)]
    tokens = [word for word, follower in pairwise([*words, ""]) if word != follower]
    return "".join(f"[{token}]" if token.isdigit() else f".{token}" for token in tokens).removeprefix(".")
