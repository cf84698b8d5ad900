"""The text that a chat completion's task gave."""

from __future__ import annotations

from api_gateway.blob_calls import BlobCalls
from api_gateway.stored_results import stored_document
from contract.openai_wire.answers import why_none
from contract.record import TaskRecord


async def text_of(record: TaskRecord, blobs: BlobCalls) -> str:
    """The answer of a task that has ended.

    Raises:
        FleetError: Why there is none.
    """
    error = why_none(record)
    if error is not None:
        raise error
    assert record.result is not None
    if record.result.text is not None:
        return record.result.text
    return str((await stored_document(record.result, blobs))["text"])
