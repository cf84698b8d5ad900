"""Every error a caller or an operator can meet, as one tree.

    FleetError                      code                    retryable
    ├── CallerError                                         no: the same request fails again
    │   ├── InvalidRequest          invalid_request
    │   ├── MalformedRequest        malformed_request
    │   ├── UnsupportedParameter    unsupported_parameter   OpenAI's, but not here
    │   ├── Unauthenticated         unauthenticated
    │   ├── Forbidden               forbidden               the key or its tenant may not do this
    │   ├── NotFound                not_found
    │   ├── Gone                    gone
    │   ├── NotReady                result_not_ready
    │   ├── WrongStatus             wrong_status            not for a task in this status
    │   ├── IdempotencyConflict     idempotency_conflict
    │   ├── TooLarge                too_large
    │   ├── UnsupportedMedia        unsupported_media
    │   ├── UrlNotAllowed           url_not_allowed
    │   ├── WebhooksOff             webhooks_off            the operator has set no key for their secrets
    │   ├── S3NotAllowed            s3_not_allowed
    │   ├── InputUnavailable        input_unavailable       the caller's URL or object can't be read
    │   ├── NotAnImage              not_an_image
    │   ├── TruncatedImage          truncated_image
    │   ├── NotADocument            not_a_document
    │   ├── DamagedDocument         damaged_document
    │   ├── EncryptedDocument       encrypted_document
    │   ├── PageOutOfRange          page_out_of_range
    │   ├── OfficeUnavailable       office_unavailable      Office files need LibreOffice, which isn't there
    │   ├── NotAVideo               not_a_video
    │   ├── DamagedVideo            damaged_video
    │   ├── LimitExceeded           limit_exceeded          pixels, bytes, pages, frames, memory or seconds of one input
    │   ├── DeadlineExceeded        deadline_exceeded       the task's deadline_s passed
    │   ├── ContextTooLong          context_too_long
    │   └── RejectedByEngine        rejected_by_engine
    └── ServiceError                                        yes: ours, another attempt may succeed
        ├── RateLimited             rate_limited
        ├── TenantQueueFull         tenant_queue_full
        ├── QueueFull               queue_full
        ├── StoreUnavailable        store_unavailable       Redis
        │   └── StoreFull           store_full              its memory is full: nothing was changed
        ├── EstimateLate            estimate_late           no io worker answered in time
        ├── GatewayStopping         gateway_stopping
        ├── BlobsUnavailable        blobs_unavailable       S3
        ├── MediaProcessDied        media_process_died
        ├── EngineDied              engine_died
        ├── InternalError           internal_error
        └── AttemptsExhausted       attempts_exhausted      not retried by itself: it was, three times

HTTP statuses live in ``api_gateway.errors`` alone. Messages are shown to callers: they name what was wrong, the
limit and the value, never a secret, an internal address or a path of the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from contract.error_info import ErrorInfo


class FleetError(Exception):
    """Base of the tree. ``str(error)`` is safe to show to the caller."""

    code: ClassVar[str] = "fleet_error"
    title: ClassVar[str] = "Error"
    retryable: ClassVar[bool] = False

    def info(self) -> ErrorInfo:
        """The error as data."""
        # Imported late: media processes raise errors and hold no pydantic, a third of their memory.
        from contract.error_info import ErrorInfo

        return ErrorInfo(code=self.code, detail=str(self), retryable=self.retryable)


class CallerError(FleetError):
    """The request can't succeed as it is."""


class InvalidRequest(CallerError):
    """A field has a value that isn't allowed.

    Args:
        message: What was wrong, with the limit and the value.
        pointer: JSON pointer to the field, or "" for the whole body.
    """

    code = "invalid_request"
    title = "Invalid value"

    def __init__(self, message: str, pointer: str = "") -> None:
        super().__init__(message)
        self.pointer = pointer

    def info(self) -> ErrorInfo:
        """The error as data, with the pointer where there is one."""
        return super().info().model_copy(update={"pointer": self.pointer or None})


class MalformedRequest(CallerError):
    """The body can't be read at all."""

    code = "malformed_request"
    title = "Malformed request"


class UnsupportedParameter(CallerError):
    """A parameter of the OpenAI wire format that this service has no answer to."""

    code = "unsupported_parameter"
    title = "Unsupported parameter"


class Unauthenticated(CallerError):
    """No key, or one that nobody holds."""

    code = "unauthenticated"
    title = "Authentication failed"


class Forbidden(CallerError):
    """The key, or its tenant, may not do this."""

    code = "forbidden"
    title = "Not permitted"


class NotFound(CallerError):
    """No such thing, or another tenant's."""

    code = "not_found"
    title = "Not found"


class Gone(CallerError):
    """It was here and has been purged."""

    code = "gone"
    title = "Purged"


class NotReady(CallerError):
    """The task has no result (yet)."""

    code = "result_not_ready"
    title = "No result"


class WrongStatus(CallerError):
    """The task's status doesn't allow this (yet)."""

    code = "wrong_status"
    title = "Not in this status"


class IdempotencyConflict(CallerError):
    """The idempotency key was used with another body."""

    code = "idempotency_conflict"
    title = "Idempotency key reused"


class TooLarge(CallerError):
    """The request body is over the limit."""

    code = "too_large"
    title = "Body too large"


class UnsupportedMedia(CallerError):
    """The request's content type isn't one we read."""

    code = "unsupported_media"
    title = "Unsupported media type"


class UrlNotAllowed(CallerError):
    """The egress policy forbids the URL or an address behind it."""

    code = "url_not_allowed"
    title = "URL not allowed"


class WebhooksOff(CallerError):
    """This fleet sends no webhooks: its operator has set no key for their secrets."""

    code = "webhooks_off"
    title = "Webhooks are off"


class S3NotAllowed(CallerError):
    """The tenant may not read that bucket or prefix."""

    code = "s3_not_allowed"
    title = "Object not allowed"


class InputUnavailable(CallerError):
    """The caller's URL or object answered with an error."""

    code = "input_unavailable"
    title = "Input unavailable"


class NotAnImage(CallerError):
    """The bytes are in no picture format that is read here."""

    code = "not_an_image"
    title = "Not an image"


class TruncatedImage(CallerError):
    """The picture ends early or is damaged."""

    code = "truncated_image"
    title = "Damaged image"


class NotADocument(CallerError):
    """The bytes are in no document format that is read here."""

    code = "not_a_document"
    title = "Not a document"


class DamagedDocument(CallerError):
    """The document, or the page of it that was asked for, can't be read."""

    code = "damaged_document"
    title = "Damaged document"


class EncryptedDocument(CallerError):
    """The document opens with a password only."""

    code = "encrypted_document"
    title = "Encrypted document"


class PageOutOfRange(CallerError):
    """The document has no page of that number."""

    code = "page_out_of_range"
    title = "No such page"


class OfficeUnavailable(CallerError):
    """Office files are read through LibreOffice, which this installation lacks."""

    code = "office_unavailable"
    title = "Office files not readable here"


class NotAVideo(CallerError):
    """The bytes hold no moving pictures in a format that is read here."""

    code = "not_a_video"
    title = "Not a video"


class DamagedVideo(CallerError):
    """The clip can't be decoded, or gives no frame for the stretch that was asked for."""

    code = "damaged_video"
    title = "Damaged video"


class LimitExceeded(CallerError):
    """One input needs more pixels, bytes, pages, frames, memory or seconds than an input may."""

    code = "limit_exceeded"
    title = "Input over a limit"


class DeadlineExceeded(CallerError):
    """The task's deadline passed before it was done."""

    code = "deadline_exceeded"
    title = "Deadline exceeded"


class ContextTooLong(CallerError):
    """Prompt and requested output don't fit the model's context."""

    code = "context_too_long"
    title = "Context too long"


class RejectedByEngine(CallerError):
    """The engine refused the request for another reason of the caller's."""

    code = "rejected_by_engine"
    title = "Rejected by the engine"


class ServiceError(FleetError):
    """Our infrastructure failed; the same request may succeed later."""

    retryable = True


class RateLimited(ServiceError):
    """The tenant sent more requests in this second than it may."""

    code = "rate_limited"
    title = "Too many requests"


class TenantQueueFull(ServiceError):
    """The tenant has as many un-ended tasks, waiting parts, bytes of inputs, or estimates that wait, as it may."""

    code = "tenant_queue_full"
    title = "Too many queued tasks"


class QueueFull(ServiceError):
    """The model's queue is at its limit of parts or bytes."""

    code = "queue_full"
    title = "Queue full"


class StoreUnavailable(ServiceError):
    """Redis is away."""

    code = "store_unavailable"
    title = "Queue unavailable"


class StoreFull(StoreUnavailable):
    """Redis is out of memory and takes no new tasks."""

    code = "store_full"
    title = "Queue out of memory"


class EstimateLate(ServiceError):
    """No io worker said in time what a task would take."""

    code = "estimate_late"
    title = "No estimate"


class GatewayStopping(ServiceError):
    """The gateway is going away and can't wait for the answer."""

    code = "gateway_stopping"
    title = "Gateway stopping"


class BlobsUnavailable(ServiceError):
    """S3 is away."""

    code = "blobs_unavailable"
    title = "Object store unavailable"


class MediaProcessDied(ServiceError):
    """The process that decodes pictures ended without an answer."""

    code = "media_process_died"
    title = "Decoder died"


class EngineDied(ServiceError):
    """The engine's loop ended."""

    code = "engine_died"
    title = "Engine died"


class InternalError(ServiceError):
    """A fault of ours that has no better name."""

    code = "internal_error"
    title = "Internal error"


class AttemptsExhausted(ServiceError):
    """Every allowed attempt failed; the task is dead-lettered."""

    code = "attempts_exhausted"
    title = "Attempts exhausted"


def all_errors() -> dict[str, type[FleetError]]:
    """Every concrete error by its code."""
    found: dict[str, type[FleetError]] = {}
    pending: list[type[FleetError]] = [CallerError, ServiceError]
    while pending:
        for error in pending.pop().__subclasses__():
            found[error.code] = error
            pending.append(error)
    return found
