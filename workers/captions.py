"""What the clips of a video gave, for the request that summarises them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import redis

from contract.blobs import BlobStore
from contract.errors import InputUnavailable, InternalError
from contract.results import PartResult
from contract.store import task_key


@dataclass(frozen=True)
class Caption:
    """What one clip gave, and its stretch of the video in seconds."""

    start_s: float
    end_s: float
    text: str

    def line(self, most_chars: int) -> str:
        """As the summary's prompt shows it, the text cut to ``most_chars``."""
        text = " ".join(self.text.split())
        if len(text) > most_chars:
            text = text[:most_chars].rstrip() + "…"
        return f"[{_clock(self.start_s)} to {_clock(self.end_s)}] {text}"


def read_captions(client: redis.Redis, blobs: BlobStore, task_id: str, summary_part: int) -> tuple[Caption, ...]:
    """The results of the parts before ``summary_part``, in order; clips that failed are left out.

    Raises:
        redis.RedisError: Redis is away.
        BlobsUnavailable: S3 is away.
        InternalError: A stored result is gone.
    """
    stored = client.hmget(task_key(task_id), [f"p{part}:result" for part in range(summary_part)])
    results = [PartResult.model_validate_json(one) for one in stored if one]
    return tuple(Caption(result.start_s or 0.0, result.end_s or 0.0, _text(result, blobs)) for result in results)


def _text(result: PartResult, blobs: BlobStore) -> str:
    if result.text is not None:
        return result.text
    try:
        stored = json.loads(blobs.get(result.blob_key))
    except InputUnavailable as exc:
        raise InternalError("a clip's result isn't in the object store") from exc
    return str(stored["text"])


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"
