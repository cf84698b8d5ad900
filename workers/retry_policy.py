"""What becomes of a part whose attempt ended with an error: a pure table.

| error                                             | then                                                        |
|---------------------------------------------------|-------------------------------------------------------------|
| the caller's fault                                | the part fails at once                                      |
| Redis or S3 away, no room for a plan's parts      | again after a rest that doubles, without using up a try     |
| engine, media process or something unknown broke  | again after a rest, one try used up; the third is the last  |
"""

from __future__ import annotations

from dataclasses import dataclass

from contract.errors import BlobsUnavailable, CallerError, FleetError, QueueFull, StoreUnavailable, TenantQueueFull

#: Rest before the second claim of a part, doubled for every claim after it, in seconds.
FIRST_REST_S = 1.0

#: Longest rest. An outage is noticed to be over within this time.
LONGEST_REST_S = 60.0

#: What says nothing about the part: outages, and a queue that is full already.
_OUTAGES = (StoreUnavailable, BlobsUnavailable, TenantQueueFull, QueueFull)


@dataclass(frozen=True)
class Fail:
    """The part ends as failed."""


@dataclass(frozen=True)
class TryAgain:
    """The part goes back to the queue.

    Attributes:
        rest_s: How long it rests first.
        counts: Whether the try is used up.
    """

    rest_s: float
    counts: bool


def decide(error: FleetError, claims: int, jitter: float) -> Fail | TryAgain:
    """Look up what to do.

    Args:
        error: What ended the attempt.
        claims: How often the part has been claimed, this attempt included; at least 1.
        jitter: In [0, 1): spreads parts that failed together over half of the rest.
    """
    if isinstance(error, CallerError):
        return Fail()
    rest_s = min(LONGEST_REST_S, FIRST_REST_S * 2 ** min(claims - 1, 16))
    return TryAgain(rest_s=rest_s * (0.5 + 0.5 * jitter), counts=not isinstance(error, _OUTAGES))
