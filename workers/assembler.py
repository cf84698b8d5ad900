"""Assembles a planned task's result: every form of it, from the parts' results to the blob store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Any

from contract.assembly import MEDIA_TYPES, AssembledFile, Assembly, ResultFormat, assembly_key
from contract.blobs import BlobStore
from contract.rendering import PartDocument, as_json, as_markdown, as_text, as_vtt
from contract.results import Usage
from contract.task import Job
from workers.part_documents import PartDocuments


@dataclass(frozen=True)
class Assembler:
    """Assembles part by part: a document of thousands of pages is never held whole, but lies in temporary files.

    ``assemble`` may be called from many threads at once.
    """

    documents: PartDocuments
    blobs: BlobStore
    inline_result_bytes: int

    def assemble(self, job: Job, check: Callable[[], None]) -> Assembly:
        """Store every form of the result; reply where they are.

        Args:
            job: The attempt; its objects are its own.
            check: Called between parts; raises to end the work.

        Raises:
            FleetError: What of ours was away or is missing.
        """
        with TemporaryFile("w+", encoding="utf-8") as spool:
            head = self._gather(job, spool, check)
            writers: dict[ResultFormat, Callable[[Iterable[PartDocument]], Iterator[str]]] = {
                "json": lambda parts: as_json(head, parts),
                "text": as_text,
                "markdown": as_markdown,
            }
            if job.spec.kind == "video":
                writers["vtt"] = as_vtt
            files, text = {}, None
            for form, write in writers.items():
                files[form], inline = self._store(job, form, write(_read(spool, check)))
                text = inline if form == "text" else text
        return Assembly(files=files, text=text)

    def _gather(self, job: Job, spool: IO[str], check: Callable[[], None]) -> dict[str, Any]:
        """Write every part to the spool, a line each; reply what there is to say of all of them."""
        usage, num_failed, count = Usage(), 0, 0
        for part in self.documents.read(job.task_id, self.documents.num_parts(job.task_id)):
            check()
            spool.write(part.model_dump_json() + "\n")
            usage, num_failed, count = usage + part.usage, num_failed + (part.error is not None), count + 1
        return {
            "task_id": job.task_id,
            "kind": job.spec.kind,
            "model": job.spec.model,
            "operation": job.spec.operation,
            "parts_total": count,
            "parts_failed": num_failed,
            "usage": usage.model_dump(),
        }

    def _store(self, job: Job, form: ResultFormat, pieces: Iterator[str]) -> tuple[AssembledFile, str | None]:
        """Store one form; reply where, and its text if that is short enough to sit in the record."""
        key = assembly_key(job.tenant, job.task_id, job.claims, form)
        with TemporaryFile("w+b") as file:
            for piece in pieces:
                file.write(piece.encode())
            size_bytes = file.tell()
            file.seek(0)
            inline = file.read().decode() if size_bytes <= self.inline_result_bytes else None
            file.seek(0)
            self.blobs.put_file(key, file, MEDIA_TYPES[form])
        return AssembledFile(key=key, size_bytes=size_bytes), inline


def _read(spool: IO[str], check: Callable[[], None]) -> Iterator[PartDocument]:
    spool.seek(0)
    for line in spool:
        check()
        yield PartDocument.model_validate_json(line)
