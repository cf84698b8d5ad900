"""Token ids to text as they come: only text that no later token can change, and nothing past a stop string."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

#: What decoders write for bytes that are not UTF-8, also for a character whose last bytes are still to come.
REPLACEMENT = "\ufffd"
#: Undecided tokens after which the front of them is let go; a character has at most 4 bytes, a token at least one.
MAX_PENDING = 16
KEPT_PENDING = 4


@dataclass(frozen=True)
class Delta:
    """A piece of an output, in order; all pieces together are the completion's text.

    Attributes:
        text: At least one whole character.
        offset: Characters of the output before this piece.
        num_output_tokens: Tokens generated so far.
    """

    text: str
    offset: int
    num_output_tokens: int


class Detokenizer:
    """What is known about a tokenizer's decoder. Any thread."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Reads the decoder's kind from the tokenizer."""
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self.byte_ids = _byte_ids(tokenizer)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Decodes ids without special tokens; broken UTF-8 becomes U+FFFD."""
        text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return text


class GrowingText:
    """Decodes one output token by token; what `take` and `finish` return adds up to `Detokenizer.decode`."""

    def __init__(self, detokenizer: Detokenizer) -> None:
        """Starts with an empty output."""
        self._detokenizer = detokenizer
        self._pending: list[int] = []
        self._num_given = 0  # characters of the pending tokens' text that were returned already

    def take(self, token_id: int) -> str:
        """Adds a token and returns the text that became certain, which may be none."""
        if token_id in self._detokenizer.special_ids:
            return ""
        self._pending.append(token_id)
        if token_id in self._detokenizer.byte_ids:
            # Such a decoder reads a run of byte tokens as a whole: one bad byte spoils all of them.
            return ""
        text = self._detokenizer.decode(self._pending)
        if not text.endswith(REPLACEMENT):
            return self._give(text, keep=0)
        # Only the last replacement character can still turn into another one.
        piece = self._give(text[:-1], keep=len(self._pending))
        if len(self._pending) > MAX_PENDING:
            self._let_go(text)
        return piece

    def finish(self) -> str:
        """Returns what was held back; no token follows."""
        return self._give(self._detokenizer.decode(self._pending), keep=0)

    def _give(self, text: str, *, keep: int) -> str:
        piece = text[self._num_given :]
        self._num_given = len(text) if keep else 0
        if not keep:
            self._pending = []
        return piece

    def _let_go(self, text: str) -> None:
        """Drops tokens from the front that share no character with those behind them."""
        for cut in range(len(self._pending) - KEPT_PENDING, 0, -1):
            front = self._detokenizer.decode(self._pending[:cut])
            if front + self._detokenizer.decode(self._pending[cut:]) == text:
                self._pending = self._pending[cut:]
                self._num_given -= len(front)
                return


class TextWatch:
    """One output's text: finds stop strings, also across tokens, and hands out deltas. One thread at a time.

    Attributes:
        text: The text so far, cut where a stop string began.
        stopped: Whether there was one; nothing is added afterwards.
    """

    def __init__(
        self, detokenizer: Detokenizer, stops: Sequence[str] = (), on_delta: Callable[[Delta], None] | None = None
    ) -> None:
        """Starts with an empty output.

        Args:
            detokenizer: Of the model.
            stops: Strings, none empty; the text is cut before the one that is complete first.
            on_delta: Told each piece once it is sure to stay.
        """
        self.text = ""
        self.stopped = False
        self._growing = GrowingText(detokenizer)
        self._stops, self._on_delta = tuple(stops), on_delta
        self._longest = max(map(len, stops), default=0)
        self._beginnings = {stop[:length] for stop in stops for length in range(1, len(stop))}
        self._num_told = 0
        self._num_tokens = 0

    def take(self, token_id: int) -> bool:
        """Adds a token; whether a stop string is complete."""
        self._num_tokens += 1
        return self._add(self._growing.take(token_id), last=False)

    def finish(self, num_output_tokens: int) -> bool:
        """Adds what was held back and tells the last delta; whether a stop string was in it."""
        self._num_tokens = num_output_tokens
        return self._add(self._growing.finish(), last=True)

    def _add(self, piece: str, *, last: bool) -> bool:
        if self.stopped:
            return True
        start = max(0, len(self.text) - self._longest + 1)
        self.text += piece
        places = [(stop, self.text.find(stop, start)) for stop in self._stops]
        # The one that is complete first, as it would have been found character by character.
        found = min(((place + len(stop), place) for stop, place in places if place >= 0), default=None)
        if found is not None:
            self.stopped = True
            self.text = self.text[: found[1]]
        self._tell(len(self.text) - (0 if self.stopped or last else self._num_held()))
        return self.stopped

    def _num_held(self) -> int:
        """Characters at the end that may be the beginning of a stop string."""
        for length in range(min(self._longest - 1, len(self.text)), 0, -1):
            if self.text[-length:] in self._beginnings:
                return length
        return 0

    def _tell(self, end: int) -> None:
        piece = self.text[self._num_told : end]
        if not piece:
            return
        delta = Delta(piece, self._num_told, self._num_tokens)
        self._num_told = end
        if self._on_delta is not None:
            self._on_delta(delta)


def _byte_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids of tokens that stand for single bytes, if the decoder knows such tokens."""
    decoder = json.loads(tokenizer.to_str())["decoder"] or {}
    if "ByteFallback" not in {part.get("type") for part in [decoder, *decoder.get("decoders", [])]}:
        return frozenset()
    ids = (tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
    return frozenset(token_id for token_id in ids if token_id is not None)
