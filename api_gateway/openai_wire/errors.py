"""Which paths speak OpenAI's words of errors, and with which status."""

from __future__ import annotations

import re

from api_gateway.errors import openai_status
from contract.error_info import ErrorInfo
from contract.openai_wire.errors import OpenAIError

#: Paths whose errors have OpenAI's form.
_PATHS = re.compile(r"/v1/chat/.*|/v1/(files|batches)(/.*)?")


def openai_error(info: ErrorInfo, pointer: str | None = None) -> OpenAIError:
    """An error in OpenAI's form; ``pointer`` is a JSON pointer to the value that is wrong."""
    return OpenAIError.of(info, openai_status(info.code), pointer)


def speaks_openai(path: str) -> bool:
    """Whether errors of this path have OpenAI's form."""
    return _PATHS.fullmatch(path) is not None
