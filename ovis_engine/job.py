"""A request on its way through the engine, and the checks it passes before it gets in."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from ovis_engine.constraint import Grammar
from ovis_engine.errors import (
    ContextTooLongError,
    EngineError,
    InvalidTilesError,
    LengthError,
    TooManyTilesError,
    TooManyTokensError,
)
from ovis_engine.prompt import PromptLayout
from ovis_engine.repetition import RepetitionGuard
from ovis_engine.request import Completion, Request
from ovis_engine.row import FinishReason, Row, TokenLogprob
from ovis_engine.sampling import MAX_SEED
from ovis_engine.slots import PinnedTile
from ovis_engine.text import Delta, Detokenizer, TextWatch


class Job:
    """A request, its prompt and its future. Fields are guarded by the dispatcher's lock."""

    def __init__(
        self,
        request: Request,
        layout: PromptLayout,
        tokens_per_tile: int,
        *,
        grammar: Grammar | None = None,
        on_delta: Callable[[Delta], None] | None = None,
    ) -> None:
        """Starts the request's clock. What its row needs and could fail to be made is made here, not when it is due."""
        self.request = request
        self.layout = layout
        self.future: Future[Completion] = Future()
        # A running future cannot be canceled by its holder, so resolving it never fails.
        self.future.set_running_or_notify_cancel()
        self.pinned: list[PinnedTile] = []
        self.row: Row | None = None
        #: Why the job must end although it has no row yet.
        self.end: FinishReason | None = None
        self.num_prompt_tokens = layout.num_tokens(tokens_per_tile)
        self.num_visual_tokens = layout.num_tiles * tokens_per_tile
        self._submitted_at = time.monotonic()
        self._grammar, self._on_delta = grammar, on_delta
        rule = None if request.ignore_eos else request.repetition
        self._guard = None if rule is None else RepetitionGuard(rule)
        self._detokenizer: Detokenizer | None = None
        given = request.sampling.seed
        self._seed = secrets.randbelow(MAX_SEED + 1) if given is None else given

    @property
    def num_total_tokens(self) -> int:
        """Positions of prompt and output together, if the output is as long as allowed."""
        return self.num_prompt_tokens + self.request.max_new_tokens

    @property
    def ends_at(self) -> float:
        """Moment on the monotonic clock at which the request's deadline passes."""
        return float("inf") if self.request.deadline_s is None else self._submitted_at + self.request.deadline_s

    def make_row(self, prompt_ids: Sequence[int], eos_token_ids: Sequence[int], detokenizer: Detokenizer) -> None:
        """Gives the job its row, once the prompt's final token ids are known."""
        request = self.request
        self._detokenizer = detokenizer
        watched = bool(request.stop) or self._on_delta is not None
        self.row = Row(
            request_id=request.request_id,
            prompt_ids=prompt_ids,
            max_new_tokens=request.max_new_tokens,
            # A constraint allows end tokens only where it is fulfilled, and then they end it.
            eos_token_ids=frozenset(eos_token_ids) if not request.ignore_eos or self._grammar else frozenset(),
            sampling=request.sampling,
            seed=self._seed,
            num_logprobs=request.logprobs,
            grammar=self._grammar,
            guard=self._guard,
            text=TextWatch(detokenizer, request.stop, self._on_delta) if watched else None,
        )

    def resolve(self, reason: FinishReason) -> None:
        """Ends the request with a completion. Not under the lock: the future's callbacks run here."""
        request, row = self.request, self.row
        token_ids: tuple[int, ...] = ()
        logprobs: tuple[TokenLogprob, ...] = ()
        text = ""
        if row is not None and self._detokenizer is not None:
            token_ids = tuple(row.token_ids[:-1] if row.reached_eos else row.token_ids)
            logprobs = tuple(row.logprobs[: len(token_ids)])
            text = self._detokenizer.decode(token_ids) if row.text is None else row.text.text
        completion = Completion(
            request_id=request.request_id,
            text=text,
            token_ids=token_ids,
            finish_reason=reason,
            num_prompt_tokens=self.num_prompt_tokens,
            num_visual_tokens=self.num_visual_tokens,
            num_output_tokens=0 if row is None else len(row.token_ids),
            num_tiles=self.layout.num_tiles,
            engine_s=time.monotonic() - self._submitted_at,
            logprobs=None if request.logprobs is None else logprobs,
            seed=None if request.sampling.is_greedy else self._seed,
            partition=request.partition,
        )
        self.future.set_result(completion)

    def fail(self, error: EngineError) -> None:
        """Ends the request with an error. Not under the lock: the future's callbacks run here."""
        self.future.set_exception(error)


def check_fits(job: Job, *, side: int, context_tokens: int, cache_tokens: int, pool_tiles: int) -> None:
    """Refuses a request that this engine can never run.

    Args:
        job: The request and its prompt.
        side: Side of a tile in pixels that the model wants.
        context_tokens: Positions of the model's context.
        cache_tokens: Tokens that the KV cache can hold of one request.
        pool_tiles: Tiles that the visual pool holds.

    Raises:
        InvalidTilesError: If the tiles were cut for another side.
        ContextTooLongError: If prompt and output exceed the context.
        TooManyTokensError: If they exceed the KV cache.
        TooManyTilesError: If the tiles exceed the visual pool.
    """
    wrong = [image.side for image in job.layout.images if image.side != side]
    if wrong:
        raise InvalidTilesError(f"tiles were fitted to {wrong[0]} px, the model wants {side} px")
    if job.num_total_tokens > context_tokens:
        raise _too_long(job, ContextTooLongError, "the model's context is", context_tokens)
    if job.num_total_tokens > cache_tokens:
        raise _too_long(job, TooManyTokensError, "the KV cache holds", cache_tokens)
    # Equal tiles share a slot, but a bound that does not depend on content is easier to explain.
    if job.layout.num_tiles > pool_tiles:
        raise TooManyTilesError(f"{job.layout.num_tiles} tiles, the visual pool holds {pool_tiles}")


def _too_long(job: Job, kind: type[LengthError], what: str, limit: int) -> LengthError:
    max_new_tokens = job.request.max_new_tokens
    message = (
        f"the prompt's {job.num_prompt_tokens} tokens ({job.num_visual_tokens} of them visual) and max_new_tokens "
        f"{max_new_tokens} make {job.num_total_tokens}, {what} {limit}"
    )
    return kind(
        message,
        num_prompt_tokens=job.num_prompt_tokens,
        num_visual_tokens=job.num_visual_tokens,
        max_new_tokens=max_new_tokens,
        limit=limit,
    )
