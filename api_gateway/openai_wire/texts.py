"""What a chat completion's task gave."""

from __future__ import annotations

from api_gateway.blob_calls import BlobCalls
from api_gateway.stored_results import stored_document
from contract.openai_wire.answers import Answer, answer_in, answer_of, why_none
from contract.record import TaskRecord


async def read_answer(record: TaskRecord, blobs: BlobCalls) -> Answer:
    """The answer of a task that has ended.

    Raises:
        FleetError: Why there is none.
    """
    error = why_none(record)
    if error is not None:
        raise error
    assert record.result is not None
    return answer_in(record) or answer_of(await stored_document(record.result, blobs))
