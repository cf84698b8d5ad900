"""Answers estimates: takes a question from Redis, looks at the inputs' sizes in a media process, pushes the answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import redis
from pydantic import ValidationError
from redis.exceptions import RedisError

from contract.blobs import BlobStore
from contract.catalogue import CATALOGUE
from contract.errors import FleetError, InternalError, LimitExceeded
from contract.estimates import (
    ANSWER_S,
    QUESTIONS_KEY,
    Estimate,
    EstimateAnswer,
    EstimateQuestion,
    answer_key,
    pace_key,
    read_pace,
)
from contract.logs import get_logger
from contract.redis_io import server_ms
from contract.task import ObjectInput
from workers.media.answers import DocumentProbe, VideoProbe
from workers.media.pool import MediaPool
from workers.sizing import estimate, look_for

log = get_logger(__name__)

#: Seconds for which a look into the list waits; below the client's own limit.
_LOOK_S = 1

#: Seconds that an answer is given before its asker gives up.
_SPARE_S = 0.3

#: Rest after Redis was away.
_REST_S = 1.0


@dataclass
class EstimateDesk:
    """One thread of it; any number of desks may share the list.

    A desk has a media process of its own, from its first question on: a slow input keeps neither plans nor other
    desks waiting.

    Attributes:
        client: Its own: it waits in a blocking call.
        blobs: Where inputs are.
        open_media: Starts one media process.
        max_parts: Most pages or clips that a task may have.
        max_frames: Most frames that one part may look at.
    """

    client: redis.Redis
    blobs: BlobStore
    open_media: Callable[[], MediaPool]
    max_parts: int
    max_frames: int
    _closing: threading.Event = field(default_factory=threading.Event)

    def serve(self) -> None:
        """Answer questions until ``close``; end the media process."""
        while not self._closing.is_set():
            try:
                self.answer_next(_LOOK_S)
            except RedisError:
                log.warning("estimates_without_redis")
                self._closing.wait(_REST_S)
        if "_media" in vars(self):
            self._media.close()

    @cached_property
    def _media(self) -> MediaPool:
        return self.open_media()

    def close(self) -> None:
        """End ``serve`` within a second or two."""
        self._closing.set()

    def answer_next(self, wait_s: int) -> bool:
        """Answer the next question, waiting for one up to ``wait_s`` seconds, at least 1; reply whether one came.

        Raises:
            redis.RedisError: Redis is away.
        """
        taken = self.client.brpop([QUESTIONS_KEY], timeout=wait_s)
        if taken is None:
            return False
        try:
            question = EstimateQuestion.model_validate_json(taken[1])
        except ValidationError:
            log.warning("estimate_unreadable")  # asked by a gateway of another version
            return True
        left_s = (question.until_ms - server_ms(self.client)) / 1000 - _SPARE_S
        if left_s <= 0:
            return True
        ends = time.monotonic() + left_s
        answer = self._answer(question, ends).model_dump_json()
        with self.client.pipeline() as pipe:
            pipe.rpush(answer_key(question.id), answer)
            pipe.expire(answer_key(question.id), ANSWER_S)
            pipe.execute()
        return True

    def _answer(self, question: EstimateQuestion, ends: float) -> EstimateAnswer:
        try:
            return EstimateAnswer(estimate=self._estimate(question, ends))
        except FleetError as exc:
            return EstimateAnswer(error=exc.info())
        except RedisError:
            raise
        except Exception as exc:
            log.exception("estimate_broke")
            return EstimateAnswer(error=InternalError(f"the worker broke: {type(exc).__name__}").info())

    def _estimate(self, question: EstimateQuestion, ends: float) -> Estimate:
        spec = question.spec
        look = look_for(spec)
        probes: list[DocumentProbe | VideoProbe] = []
        for source in spec.inputs:
            trusted = isinstance(source, ObjectInput)
            url = self.blobs.presigned_get(source.bucket, source.key) if isinstance(source, ObjectInput) else source.url
            left_s = ends - time.monotonic()
            if left_s <= 0:
                raise LimitExceeded("looking at the inputs took longer than an estimate may")
            probes.append(self._media.probe(url, trusted=trusted, timeout_s=left_s, look=look))
        pace = read_pace(self.client.hgetall(pace_key(spec.model)))
        return estimate(spec, CATALOGUE[spec.model], probes, pace, max_parts=self.max_parts, max_frames=self.max_frames)
