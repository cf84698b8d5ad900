"""A request on its way through the engine, and the checks it passes before it gets in."""

from __future__ import annotations

import time
from concurrent.futures import Future

from ovis_engine.errors import (
    ContextTooLongError,
    EngineError,
    InvalidTilesError,
    TooManyTilesError,
    TooManyTokensError,
)
from ovis_engine.prompt import PromptLayout
from ovis_engine.request import Completion, FinishReason, Request
from ovis_engine.slots import PinnedTile


class Job:
    """A request, its prompt and its future. Fields are guarded by the dispatcher's lock."""

    def __init__(self, request: Request, layout: PromptLayout, tokens_per_tile: int) -> None:
        """Starts the request's clock."""
        self.request = request
        self.layout = layout
        self.future: Future[Completion] = Future()
        # A running future cannot be canceled by its holder, so resolving it never fails.
        self.future.set_running_or_notify_cancel()
        self.pinned: list[PinnedTile] = []
        self.token_ids: list[int] = []
        self.canceled = False
        self.num_prompt_tokens = layout.num_tokens(tokens_per_tile)
        self.num_visual_tokens = layout.num_tiles * tokens_per_tile
        self._submitted_at = time.monotonic()

    @property
    def num_total_tokens(self) -> int:
        """Positions of prompt and output together, if the output is as long as allowed."""
        return self.num_prompt_tokens + self.request.max_new_tokens

    def resolve(
        self, *, text: str, token_ids: tuple[int, ...], finish_reason: FinishReason, num_output_tokens: int
    ) -> None:
        """Ends the request with a completion. Not under the lock: the future's callbacks run here."""
        completion = Completion(
            request_id=self.request.request_id,
            text=text,
            token_ids=token_ids,
            finish_reason=finish_reason,
            num_prompt_tokens=self.num_prompt_tokens,
            num_visual_tokens=self.num_visual_tokens,
            num_output_tokens=num_output_tokens,
            num_tiles=self.layout.num_tiles,
            engine_s=time.monotonic() - self._submitted_at,
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
        cache_tokens: Tokens of the whole KV cache; both it and a request occupy whole pages.
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
    sizes = (
        f"the prompt's {job.num_prompt_tokens} tokens ({job.num_visual_tokens} of them visual) and "
        f"max_new_tokens {job.request.max_new_tokens} make {job.num_total_tokens}"
    )
    if job.num_total_tokens > context_tokens:
        raise ContextTooLongError(f"{sizes}, the model's context is {context_tokens}")
    if job.num_total_tokens > cache_tokens:
        raise TooManyTokensError(f"{sizes}, the KV cache holds {cache_tokens}")
    # Equal tiles share a slot, but a bound that does not depend on content is easier to explain.
    if job.layout.num_tiles > pool_tiles:
        raise TooManyTilesError(f"{job.layout.num_tiles} tiles, the visual pool holds {pool_tiles}")
