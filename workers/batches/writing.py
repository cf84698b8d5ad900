"""Writes what came of a batch: the output file and the error file, a line for each line of the input."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Literal

import redis
from redis.exceptions import RedisError

from contract.batch_changes import HeldBatch, WrittenFile
from contract.batches import BatchError, LineError, line_task_id, refused_key
from contract.blobs import BlobStore
from contract.error_info import ErrorInfo
from contract.errors import FleetError, Gone, InputUnavailable, StoreUnavailable
from contract.files import file_blob_key, output_file_id
from contract.openai_wire.answers import ChatCompletion, answer_in, answer_of, why_none
from contract.openai_wire.batch_lines import InputLine, LineResponse, OutputLine, UnrunError, read_line
from contract.openai_wire.errors import OpenAIError
from contract.record import RECORD_FIELDS, TaskRecord
from contract.results import Usage
from contract.store import task_key
from contract.task import TaskStatus
from workers.batches.lease import BatchLease
from workers.batches.lines import Line, read_lines

#: Lines whose records are read at once: how many, and from how many bytes on there are no more of them.
_CHUNK, _CHUNK_BYTES = 100, 8 * 1024**2

_MEDIA_TYPE = "application/jsonl"


@dataclass(frozen=True)
class Written:
    """What was stored of a batch."""

    files: tuple[WrittenFile, ...]
    num_completed: int
    num_failed: int
    usage: Usage


@dataclass(frozen=True)
class _AskedLine:
    """A line of the input, and what stands in Redis of it."""

    number: int
    line: InputLine
    record: TaskRecord | None
    refused: LineError | None


@dataclass(frozen=True)
class OutputWriter:
    """Writes outputs. The lines lie in temporary files meanwhile. Thread-safe."""

    client: redis.Redis
    blobs: BlobStore
    max_line_bytes: int

    def write(self, lease: BatchLease) -> Written:
        """Store both files, each only where it has a line.

        Raises:
            StepEnded: The lease is lost, or the worker is going away.
            InputUnavailable: The input file isn't there any more.
            StoreUnavailable, BlobsUnavailable: What of ours is away.
        """
        held, usage = lease.held, Usage()
        counts: dict[Literal["output", "error"], int] = {"output": 0, "error": 0}
        with ExitStack() as stack:
            spools: dict[Literal["output", "error"], IO[bytes]] = {
                "output": stack.enter_context(TemporaryFile()),
                "error": stack.enter_context(TemporaryFile()),
            }
            for asked in self._lines(held):
                lease.check()
                written = self._answer(asked, held)
                well = written.response is not None and isinstance(written.response.body, ChatCompletion)
                which: Literal["output", "error"] = "output" if well else "error"
                spools[which].write(written.model_dump_json().encode() + b"\n")
                counts[which] += 1
                if asked.record is not None and asked.record.usage is not None:
                    usage += asked.record.usage
            files = tuple(self._store(held, which, spools[which]) for which in spools if counts[which])
        return Written(files, counts["output"], counts["error"], usage)

    def _lines(self, held: HeldBatch) -> Iterator[_AskedLine]:
        record = held.record
        with closing(self.blobs.chunks(record.input_blob)) as chunks:
            begin = 0
            for chunk in in_chunks(read_lines(chunks, self.max_line_bytes)):
                numbers = list(range(begin, begin + len(chunk)))
                begin += len(chunk)
                records, refused = self._read(record.id, numbers)
                for number, line, task, error in zip(numbers, chunk, records, refused, strict=True):
                    found = read_line(line.text, line.number)
                    if isinstance(found, BatchError):
                        raise InputUnavailable("the file isn't the one that was checked")
                    yield _AskedLine(number, found, task, error)

    def _read(self, batch_id: str, numbers: list[int]) -> tuple[list[TaskRecord | None], list[LineError | None]]:
        """What stands in Redis of these lines."""
        ids = [line_task_id(batch_id, number) for number in numbers]
        try:
            with self.client.pipeline(transaction=False) as pipe:
                for task_id in ids:
                    pipe.hmget(task_key(task_id), RECORD_FIELDS)
                pipe.hmget(refused_key(batch_id), [str(number) for number in numbers])
                *hashes, errors = pipe.execute()
        except RedisError as exc:
            raise StoreUnavailable("the queue can't be reached; try again later") from exc
        records = [TaskRecord.from_values(task_id, values) for task_id, values in zip(ids, hashes, strict=True)]
        return records, [LineError.model_validate_json(error) if error else None for error in errors]

    def _answer(self, asked: _AskedLine, held: HeldBatch) -> OutputLine:
        task_id = line_task_id(held.record.id, asked.number)
        begun = OutputLine(id=f"batch_req_{task_id.removeprefix('task_')}", custom_id=asked.line.custom_id)
        unrun = _unrun(asked, held)
        if unrun is not None:
            return begun.model_copy(update={"error": unrun})
        if asked.refused is not None:
            error = ErrorInfo(code=asked.refused.code, detail=asked.refused.detail, retryable=False)
            return _with(begun, task_id, _failure(error, held, asked.refused.pointer))
        completion = self._completion(asked)
        if isinstance(completion, FleetError):
            return _with(begun, task_id, _failure(completion.info(), held))
        return _with(begun, task_id, (200, completion))

    def _completion(self, asked: _AskedLine) -> ChatCompletion | FleetError:
        """The answer of a line that was run, or why there is none for good.

        Raises:
            BlobsUnavailable: S3 is away: there may be an answer. A task's own error is returned, whatever its kind.
        """
        record = asked.record
        if record is None:
            return Gone("the task of this line was deleted before the batch ended")
        error = why_none(record)
        if error is not None:
            return error
        assert record.result is not None
        answer = answer_in(record)
        if answer is None:
            try:
                answer = answer_of(json.loads(self.blobs.get(record.result.blob_key)))
            except InputUnavailable:
                return Gone("the stored result isn't there any more")
        return ChatCompletion.of(record, asked.line.model, answer)

    def _store(self, held: HeldBatch, which: Literal["output", "error"], spool: IO[bytes]) -> WrittenFile:
        record = held.record
        file_id = output_file_id(record.id, which)
        size_bytes = spool.tell()
        spool.seek(0)
        key = file_blob_key(record.tenant, file_id, record.claims)
        self.blobs.put_file(key, spool, _MEDIA_TYPE)
        return WrittenFile(which, file_id, f"{record.id}_{which}.jsonl", key, size_bytes)


def in_chunks(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """The lines in their order, few enough at a time to lie in memory: more than 8 MiB only by the last of them."""
    chunk: list[Line] = []
    size = 0
    for line in lines:
        chunk.append(line)
        size += len(line.text)
        if len(chunk) == _CHUNK or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _unrun(asked: _AskedLine, held: HeldBatch) -> UnrunError | None:
    """Why a line was never answered, where the batch's own end is the reason."""
    record = held.record
    if asked.number < record.fed and asked.record is not None:
        if asked.record.status is TaskStatus.EXPIRED:
            return _EXPIRED
        return _CANCELLED if asked.record.status is TaskStatus.CANCELED else None
    if asked.number < record.fed:
        return None
    return _CANCELLED if record.status == "cancelling" else _EXPIRED


_EXPIRED = UnrunError(code="batch_expired", message="this request wasn't answered within the completion window")
_CANCELLED = UnrunError(code="batch_cancelled", message="this request was canceled before it was answered")


def _failure(error: ErrorInfo, held: HeldBatch, pointer: str | None = None) -> tuple[int, OpenAIError]:
    status = held.terms.statuses.get(error.code, 500)
    return status, OpenAIError.of(error, status, pointer)


def _with(line: OutputLine, task_id: str, answer: tuple[int, ChatCompletion | OpenAIError]) -> OutputLine:
    status, body = answer
    return line.model_copy(update={"response": LineResponse(status_code=status, request_id=task_id, body=body)})
