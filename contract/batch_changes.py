"""Every change of batches, as commands (see ``contract.scripting``); the table of keys is in ``contract.store``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from contract.batches import BatchError, BatchRecord, BatchStatus, BatchTerms, LineError
from contract.results import Usage
from contract.scripting import Command, load_script
from contract.store import IDEMPOTENCY_S, PURGED_S
from contract.task import dumps

CreateOutcome = Literal["created", "exists", "conflict", "no_file", "other_purpose", "full"]
StepEnd = Literal["whole", "cut", "broken"]

_errors: TypeAdapter[tuple[BatchError, ...]] = TypeAdapter(tuple[BatchError, ...])


@dataclass(frozen=True)
class NewBatch:
    """A batch about to be accepted.

    Attributes:
        window_s: Seconds that it may take.
        kept_s: Seconds for which it and its outputs are kept after its end.
        tenant_limit: Most un-ended batches of the tenant.
        body_hash: What tells two bodies under one idempotency key apart.
    """

    id: str
    tenant: str
    input_file: str
    endpoint: str
    completion_window: str
    window_s: int
    metadata: dict[str, str]
    terms: BatchTerms
    kept_s: int
    tenant_limit: int
    idempotency_key: str = ""
    body_hash: str = "-"


@dataclass(frozen=True)
class HeldBatch:
    """A batch under a lease.

    Attributes:
        record: As it stood at the claim.
        now_ms: When that was, by the clock of Redis.
    """

    record: BatchRecord
    terms: BatchTerms
    token: str
    now_ms: int


@dataclass(frozen=True)
class ClaimedBatch:
    """A batch under a lease, as it came from Redis: what of it can't be read doesn't cost the lease.

    Attributes:
        fields: Its record's.
        now_ms: When it was claimed, by the clock of Redis.
    """

    id: str
    fields: Mapping[str, str]
    token: str
    now_ms: int

    def read(self) -> HeldBatch:
        """What stands in it.

        Raises:
            ValidationError: Another version of this software wrote it in a form that isn't read here.
        """
        terms = BatchTerms.model_validate_json(self.fields.get("terms", "null"))
        return HeldBatch(BatchRecord.from_hash(self.id, self.fields), terms, self.token, self.now_ms)


@dataclass(frozen=True)
class WrittenFile:
    """An output that lies in the blob store."""

    which: Literal["output", "error"]
    id: str
    filename: str
    blob: str
    size_bytes: int


def create_batch(new: NewBatch) -> Command[tuple[CreateOutcome, str]]:
    """Accept a batch; reply outcome and the batch's id."""
    args = (
        *(new.id, new.tenant, new.input_file, new.endpoint, new.completion_window, new.window_s),
        *(dumps(new.metadata), new.terms.model_dump_json(), new.kept_s),
        *(new.idempotency_key, new.body_hash, IDEMPOTENCY_S, new.tenant_limit),
    )
    return Command(load_script("batch_create"), args, lambda reply: (reply[0], reply[1]))


def claim_batch(token: str) -> Command[ClaimedBatch | None]:
    """Take the batch that is most due under a lease; None where none is due."""

    def parse(reply: list[Any] | None) -> ClaimedBatch | None:
        if reply is None:
            return None
        batch_id, flat, now_ms = reply
        return ClaimedBatch(batch_id, dict(zip(flat[::2], flat[1::2], strict=True)), token, int(now_ms))

    return Command(load_script("batch_claim"), (token,), parse)


def renew_batch(batch_id: str, token: str) -> Command[BatchStatus | Literal["lost"]]:
    """Hold a batch for another lease; reply its status."""
    return Command(load_script("batch_renew"), (batch_id, token), lambda reply: reply)


def rest_batch(batch_id: str, token: str, rest_ms: int, step: StepEnd) -> Command[bool]:
    """Let go of a batch.

    Args:
        batch_id, token: Of the holder.
        rest_ms: When it is looked at again.
        step: How it ended: "whole", so that earlier losses of holders count no more; "cut" by an outage or a worker
            that goes away; "broken" by a fault of ours, which counts as a loss.
    """
    return Command(load_script("batch_rest"), (batch_id, token, rest_ms, step), bool)


def begin_batch(batch_id: str, token: str, total: int) -> Command[BatchStatus | Literal["lost"]]:
    """Say that the file can be run and how many lines it has; reply the batch's status."""
    return Command(load_script("batch_begin"), (batch_id, token, total), lambda reply: reply)


def refuse_line(
    batch_id: str, token: str, line: int, next_offset: int, error: LineError
) -> Command[Literal["ok", "stale"]]:
    """Pass over a line that can't become a task."""
    args = (batch_id, token, line, next_offset, error.model_dump_json())
    return Command(load_script("batch_refuse"), args, lambda reply: reply)


def lines_stopped(batch_id: str, token: str, lines: int) -> Command[Literal["ok", "stale"]]:
    """Say how many lines have been asked to end."""
    return Command(load_script("batch_stopped"), (batch_id, token, lines), lambda reply: reply)


def finalize_batch(batch_id: str, token: str) -> Command[BatchStatus | Literal["waiting", "lost"]]:
    """Ask to write the outputs; reply "waiting" while lines are under way, or are still to begin."""
    return Command(load_script("batch_finalize"), (batch_id, token), lambda reply: reply)


def end_batch(
    batch_id: str,
    token: str,
    *,
    errors: Sequence[BatchError] = (),
    num_completed: int = 0,
    num_failed: int = 0,
    usage: Usage | None = None,
    files: Sequence[WrittenFile] = (),
) -> Command[BatchStatus | Literal["lost"]]:
    """End a batch: as failed where there are ``errors``; reply its status."""
    args: list[str | int] = [batch_id, token, "failed" if errors else "written"]
    args.append(_errors.dump_json(tuple(errors)).decode() if errors else "")
    args += [num_completed, num_failed, usage.model_dump_json() if usage else ""]
    for file in files:
        args += [file.which, file.id, file.filename, file.blob, file.size_bytes]
    return Command(load_script("batch_end"), tuple(args), lambda reply: reply)


def cancel_batch(batch_id: str, tenant: str) -> Command[BatchStatus | Literal["missing"]]:
    """Ask for a batch's end; reply its status after that."""
    return Command(load_script("batch_cancel"), (batch_id, tenant), lambda reply: reply)


def purge_batch(batch_id: str) -> Command[bool]:
    """Forget an ended batch; reply whether it was one."""
    return Command(load_script("batch_purge"), (batch_id, PURGED_S), bool)
