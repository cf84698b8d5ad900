"""Answers kept for the same question: per tenant, where a task asks for it (``options.cache_s``).

An answer lies in S3, ``cache/<tenant>/<key>/answer.json``; Redis holds a pointer that runs out. An entry that can't be
read is a miss: the cache never fails a part.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

import redis
from pydantic import TypeAdapter, ValidationError
from redis.exceptions import RedisError

from contract.blobs import BlobStore, cache_key
from contract.errors import FleetError
from contract.logs import get_logger
from contract.operations import OPERATIONS
from contract.redis_io import server_ms
from contract.store import cached_key
from contract.task import TaskSpec
from workers.inputs import PartInputs
from workers.readings import Reading

log = get_logger(__name__)

#: Options that don't change what the model would say of the same pictures.
_BESIDE_THE_ANSWER = {"cache_s", "pages", "on_page_failure", "num_frames", "fps", "start_s", "end_s", "clip_s"}

_reading: TypeAdapter[Reading] = TypeAdapter(Reading)


@dataclass(frozen=True)
class ResultCache:
    """The answers of one model. Any thread.

    Attributes:
        revision: What tells the model's checkpoints and number formats apart.
    """

    client: redis.Redis
    blobs: BlobStore
    revision: str

    def find(self, tenant: str, spec: TaskSpec, inputs: PartInputs) -> Reading | None:
        """An answer no older than ``options.cache_s``, billed without engine; None where there is none."""
        if spec.options.cache_s is None:
            return None
        key = question_key(spec, inputs, self.revision)
        try:
            kept = self.client.get(cached_key(tenant, key))
            if kept is None or server_ms(self.client) - int(kept) > 1000 * spec.options.cache_s:
                return None
            reading = _reading.validate_json(self.blobs.get(cache_key(tenant, key)))
        except (RedisError, FleetError, ValidationError) as exc:
            log.warning("cache_not_read", error=type(exc).__name__)
            return None
        return replace(reading, source="cache", usage=inputs.counts, start_s=inputs.start_s, end_s=inputs.end_s)

    def keep(self, tenant: str, spec: TaskSpec, inputs: PartInputs, reading: Reading) -> None:
        """Keep a model's answer for ``options.cache_s``; the object first, so that a pointer leads somewhere."""
        keep_s = spec.options.cache_s
        if keep_s is None or reading.source != "model":
            return
        key = question_key(spec, inputs, self.revision)
        try:
            self.blobs.put(cache_key(tenant, key), _reading.dump_json(reading), "application/json")
            left_ms = self.client.pttl(cached_key(tenant, key))
            self.client.set(cached_key(tenant, key), server_ms(self.client), px=max(1000 * keep_s, left_ms))
        except (RedisError, FleetError) as exc:
            log.warning("cache_not_written", error=type(exc).__name__)


def question_key(spec: TaskSpec, inputs: PartInputs, revision: str) -> str:
    """Hex digest of all that an answer depends on: tiles and text as the model sees them, prompts, options, model."""
    question = {
        "model": spec.model,
        "revision": revision,
        "operation": spec.operation,
        "system": spec.system,
        "history": [turn.model_dump() for turn in spec.history],
        "prompt": spec.prompt,
        "hint_prompt": spec.hint_prompt,
        "summary_prompt": spec.summary_prompt if inputs.captions else None,
        "options": spec.options.model_dump(mode="json", exclude=_BESIDE_THE_ANSWER),
        "images": [image.content_hash for image in inputs.images],
        "film": inputs.is_film,
        "ink": inputs.has_ink or not OPERATIONS[spec.operation].reads,
        "text": inputs.text,
        "captions": [[caption.start_s, caption.end_s, caption.text] for caption in inputs.captions],
    }
    return hashlib.sha256(_canonical(question)).hexdigest()


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
