"""What came of a part before it is stored."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import JsonValue

from contract.results import FinishReason, PartResult, Source, TokenLogprob, Usage
from contract.task import Attempt


@dataclass(frozen=True)
class Reading:
    """An answer, as ``PartResult`` but for where it lies, and for what is kept in the blob store alone.

    Attributes:
        logprobs: How likely each token of the text was; None where nobody asked for it.
    """

    text: str
    usage: Usage
    data: JsonValue = None
    finish_reason: FinishReason | None = None
    source: Source = "model"
    warnings: tuple[str, ...] = ()
    start_s: float | None = None
    end_s: float | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None

    def result(self, blob_key: str) -> PartResult:
        """The result that will lie at ``blob_key``."""
        return PartResult(
            text=self.text,
            finish_reason=self.finish_reason,
            blob_key=blob_key,
            usage=self.usage,
            data=self.data,
            warnings=self.warnings,
            source=self.source,
            start_s=self.start_s,
            end_s=self.end_s,
        )

    def document(self, result: PartResult, attempt: Attempt) -> dict[str, object]:
        """What lies at the result's ``blob_key``."""
        document = result.document(attempt.task_id, attempt.part, attempt.spec)
        if self.logprobs is not None:
            document["logprobs"] = [entry.model_dump() for entry in self.logprobs]
        return document
