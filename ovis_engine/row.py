"""One sequence in the decode loop: what it was asked for, what it has said, and why it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ovis_engine.constraint import Grammar
from ovis_engine.errors import CallbackError, EngineError
from ovis_engine.repetition import RepetitionGuard
from ovis_engine.sampling import Sampling
from ovis_engine.text import TextWatch

FinishReason = Literal["stop", "length", "canceled", "repetition", "deadline"]


@dataclass(frozen=True)
class TokenLogprob:
    """How likely an output token was for the model: before penalties, temperature, filters and constraints.

    Attributes:
        token_id: The token.
        logprob: Its natural log probability, at most 0.
        top: The most likely tokens and their log probabilities, most likely first, as many as were asked for.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(eq=False)
class Row:
    """A row of the decode loop, which keeps it through preemption: all state is keyed to the output so far.

    The loop's thread alone changes it, except for `end_with`.

    Attributes:
        request_id: Unique in the loop.
        prompt_ids: Token ids of the prompt, visual ones included.
        max_new_tokens: Most tokens to generate.
        eos_token_ids: Ids that end the row.
        sampling: How tokens are chosen.
        seed: Key of the row's random numbers.
        num_logprobs: Most likely tokens to note per output token; None notes nothing.
        grammar: Constraint of the output.
        guard: Ends the row when it repeats itself.
        text: Follows the text where deltas or stop strings are wanted.
        token_ids: Everything generated, end token included.
        logprobs: One per generated token, if wanted.
        verdict: Why the output ends, once its own tokens say so.
        fault: What broke on this row alone.
    """

    request_id: str
    prompt_ids: Sequence[int]
    max_new_tokens: int
    eos_token_ids: frozenset[int] = frozenset()
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    num_logprobs: int | None = None
    grammar: Grammar | None = None
    guard: RepetitionGuard | None = None
    text: TextWatch | None = None
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    verdict: FinishReason | None = None
    fault: EngineError | None = None
    _asked: FinishReason | None = None

    @property
    def is_plain(self) -> bool:
        """Whether its next token is the argmax of the logits and nothing else is wanted of them."""
        plain = self.sampling.is_greedy and self.sampling.repetition_penalty == 1.0
        return plain and self.grammar is None and self.num_logprobs is None

    @property
    def wants_to_leave(self) -> bool:
        """Whether it must not be scheduled any more."""
        return self.verdict is not None or self.fault is not None or self._asked is not None

    @property
    def reached_eos(self) -> bool:
        """Whether the last token is an end token."""
        return bool(self.token_ids) and self.token_ids[-1] in self.eos_token_ids

    def take(self, token_id: int) -> None:
        """Adds a generated token and judges the output. Loop thread."""
        self.token_ids.append(token_id)
        try:
            self.verdict = self._judge(token_id)
        except EngineError as exc:
            self.fault = exc

    def finish(self) -> FinishReason:
        """Says why the row ended; tells the last delta. Loop thread, once, after it has left the loop."""
        reason = self.verdict or ("stop" if self.reached_eos else None)
        if reason is None:
            reason = "length" if len(self.token_ids) >= self.max_new_tokens else self._asked or "canceled"
        if self.text is not None and self.fault is None:
            try:
                if self.text.finish(len(self.token_ids)):
                    reason = "stop"
            except Exception as exc:  # noqa: BLE001 - a caller's callback may raise anything
                self.fault = _callback_error(exc)
        return reason

    def end_with(self, reason: FinishReason) -> None:
        """Asks for the row's end, for a reason that its tokens do not give. Any thread."""
        self._asked = self._asked or reason

    def __deepcopy__(self, _memo: dict[int, Any]) -> Row:
        """The library copies a row's arguments when it preempts it; the row stays the same."""
        return self

    def _judge(self, token_id: int) -> FinishReason | None:
        if token_id in self.eos_token_ids:
            return "stop"
        if self.grammar is not None:
            self.grammar.take(token_id)
        if self.text is not None and self._text_stops(self.text, token_id):
            return "stop"
        if self.grammar is not None and self.grammar.is_over:
            return "stop"
        if self.guard is not None and self.guard.take(token_id):
            return "repetition"
        return None

    def _text_stops(self, text: TextWatch, token_id: int) -> bool:
        try:
            return text.take(token_id)
        except Exception as exc:
            raise _callback_error(exc) from exc


def _callback_error(exc: Exception) -> CallbackError:
    error = CallbackError(f"the request's on_delta raised {type(exc).__name__}")
    error.__cause__ = exc
    return error
