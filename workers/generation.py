"""Runs of the engine under a lease: stopped with it, their errors in the fleet's words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass

from contract.errors import ContextTooLong, EngineDied, RejectedByEngine
from contract.results import LikelyToken, TokenLogprob, Usage
from ovis_engine import Completion, ConstraintFailedError, Delta, Engine, EngineError, Request, RequestError
from workers.leases import Lease, Stopped


@dataclass(frozen=True)
class Generator:
    """Asks one engine. Any thread."""

    engine: Engine

    def run(self, request: Request, lease: Lease, on_delta: Callable[[Delta], None] | None = None) -> Completion:
        """Ask and wait; ``on_delta`` is as ``Engine.submit`` has it. Raises as ``run_all``."""
        return self.run_all([request], lease, on_delta)[0]

    def run_all(
        self, requests: Sequence[Request], lease: Lease, on_delta: Callable[[Delta], None] | None = None
    ) -> list[Completion]:
        """Ask all at once and wait for all.

        Raises:
            Stopped: The lease was stopped meanwhile.
            ContextTooLong, RejectedByEngine: The engine refuses one of them.
            EngineDied: The engine ended first.
        """
        lease.check()
        ids = [request.request_id for request in requests]
        try:
            futures = [self.engine.submit(request, on_delta) for request in requests]
            # Calls at once where the stop came before the engine knew the requests.
            lease.when_stopped(lambda: self._cancel(ids))
            completions = [future.result() for future in futures]
        except (RequestError, ConstraintFailedError) as exc:
            self._cancel(ids)
            known = ContextTooLong if exc.code == ContextTooLong.code else RejectedByEngine
            raise known(str(exc)) from exc
        except (EngineError, CancelledError) as exc:
            raise EngineDied("the engine stopped before the result was there") from exc
        if any(completion.finish_reason == "canceled" for completion in completions):
            raise Stopped
        return completions

    def fits(self, request: Request) -> bool:
        """Whether prompt and output fit the model's context.

        Raises:
            RejectedByEngine: The request is malformed.
        """
        try:
            num_prompt_tokens = self.engine.count_prompt_tokens(request)
        except RequestError as exc:
            raise RejectedByEngine(str(exc)) from exc
        return num_prompt_tokens + request.max_new_tokens <= self.engine.max_context_tokens

    def logprobs(self, completion: Completion) -> tuple[TokenLogprob, ...]:
        """How likely the tokens of the completion's text were; those of a stop string are left out."""
        told, length = [], 0
        for entry in completion.logprobs or ():
            if length >= len(completion.text):
                break
            token = self._text(entry.token_id)
            length += len(token)
            top = tuple(LikelyToken(token=self._text(other), logprob=value) for other, value in entry.top)
            told.append(TokenLogprob(token=token, logprob=entry.logprob, top=top))
        return tuple(told)

    def _text(self, token_id: int) -> str:
        """A token by itself: "" for a special one, with U+FFFD where it is a piece of a character."""
        return str(self.engine.prompter.tokenizer.decode([token_id], skip_special_tokens=True))

    def _cancel(self, request_ids: Sequence[str]) -> None:
        for request_id in request_ids:
            self.engine.cancel(request_id)


def usage_of(completion: Completion) -> Usage:
    """What one run took."""
    return Usage(
        tiles=completion.num_tiles,
        prompt_tokens=completion.num_prompt_tokens,
        visual_tokens=completion.num_visual_tokens,
        output_tokens=completion.num_output_tokens,
        gpu_seconds=round(completion.engine_s, 4),
    )
