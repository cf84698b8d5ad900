"""Errors as HTTP: the one table from code to status, and problem details (RFC 9457).

No other module, and no other room, knows an HTTP status of an error.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from contract.error_info import ErrorInfo
from contract.errors import CallerError, FleetError, all_errors
from contract.refusals import FieldError as FieldError
from contract.refusals import Refused as Refused


class MethodNotAllowed(CallerError):
    """The path is there, the method isn't. Only HTTP knows this error, so it isn't in the contract."""

    code = "method_not_allowed"
    title = "Method not allowed"


#: HTTP status of every error.
HTTP_STATUS: dict[str, int] = {
    "malformed_request": 400,
    "unsupported_parameter": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "s3_not_allowed": 403,
    "webhooks_off": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "result_not_ready": 409,
    "wrong_status": 409,
    "gone": 410,
    "too_large": 413,
    "unsupported_media": 415,
    "invalid_request": 422,
    "idempotency_conflict": 422,
    "url_not_allowed": 422,
    "input_unavailable": 422,
    "not_an_image": 422,
    "truncated_image": 422,
    "not_a_document": 422,
    "damaged_document": 422,
    "encrypted_document": 422,
    "page_out_of_range": 422,
    "office_unavailable": 422,
    "not_a_video": 422,
    "damaged_video": 422,
    "limit_exceeded": 422,
    "deadline_exceeded": 422,
    "context_too_long": 422,
    "rejected_by_engine": 422,
    "rate_limited": 429,
    "tenant_queue_full": 429,
    "media_process_died": 500,
    "engine_died": 500,
    "internal_error": 500,
    "attempts_exhausted": 500,
    "queue_full": 503,
    "store_unavailable": 503,
    "store_full": 503,
    "blobs_unavailable": 503,
    "estimate_late": 503,
    "gateway_stopping": 503,
}

#: Where OpenAI's clients go by another status: they repeat a request after 408, 409, 429 and from 500 on.
_OPENAI_STATUS: dict[str, int] = {"deadline_exceeded": 504, "wrong_status": 400}


def openai_status(code: str) -> int:
    """HTTP status of an error in the OpenAI wire format, which has 400 for wrong values."""
    status = _OPENAI_STATUS.get(code) or HTTP_STATUS.get(code, 500)
    return 400 if status == 422 else status


#: Seconds after which another try may succeed, for errors of which that can be said.
RETRY_AFTER_S: dict[str, int] = {
    "rate_limited": 1,
    "tenant_queue_full": 5,
    "queue_full": 10,
    "store_unavailable": 2,
    "store_full": 10,
    "blobs_unavailable": 2,
    "estimate_late": 5,
    "gateway_stopping": 1,
}


class Problem(BaseModel):
    """Problem details (RFC 9457); also the form of a task's ``error``."""

    model_config = ConfigDict(frozen=True)
    type: str = Field(description="URN of the code")
    title: str
    status: int
    detail: str
    code: str = Field(description="stable; see the table of errors")
    retryable: bool = Field(description="whether the same request may succeed later")
    request_id: str | None = Field(description="None in a task's error, which no request caused")
    errors: tuple[FieldError, ...] = ()

    @classmethod
    def of(cls, info: ErrorInfo, *, request_id: str | None = None, errors: tuple[FieldError, ...] = ()) -> Problem:
        """The problem that an error is to a caller; ``errors`` say more than the pointer of ``info``."""
        if info.pointer and not errors:
            errors = (FieldError(detail=info.detail, pointer=info.pointer),)
        known = all_errors().get(info.code, FleetError)
        return cls(
            type=f"urn:ovis-fleet:error:{info.code}",
            title=known.title,
            status=HTTP_STATUS.get(info.code, 500),
            detail=info.detail,
            code=info.code,
            retryable=info.retryable,
            request_id=request_id,
            errors=errors,
        )
