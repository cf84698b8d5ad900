"""The chat formats of the language models that Ovis is built on.

Ported from AIDC-AI/Ovis, branch v2.0, commit d1283c93, and branch v1.6, commit d248e34d (``conversation_formatter``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ovis_engine.errors import SystemMessageNotSupportedError
from ovis_engine.families import LanguageModel
from ovis_engine.prompt import ChatFormat, Control, Role, Turn, check_turns, joined
from ovis_engine.tiling import TiledImage

Pieces = Iterator[str | TiledImage | Control]


class QwenChat:
    """Qwen2.5, as Ovis2 was trained: text is not stripped, a caller's system message replaces the default."""

    default_system = "You are a helpful assistant."
    controls = ("<|im_start|>", "<|im_end|>")

    def pieces(self, turns: Sequence[Turn]) -> Pieces:
        """As `ChatFormat.pieces`."""
        start, end = (Control(token) for token in self.controls)
        for turn in _with_system(turns, self.default_system):
            yield start
            yield from joined((f"{turn.role}\n", *turn.parts))
            yield end
            yield "\n"
        yield start
        yield "assistant\n"


class GemmaChat:
    """Gemma2: text is stripped, there is no system turn."""

    controls = ("<bos>", "<start_of_turn>", "<end_of_turn>")
    roles: dict[Role, str] = {"user": "user", "assistant": "model"}  # noqa: RUF012 - never changed

    def pieces(self, turns: Sequence[Turn]) -> Pieces:
        """As `ChatFormat.pieces`.

        Raises:
            SystemMessageNotSupportedError: If there is a system message.
        """
        check_turns(turns)
        if turns[0].role == "system":
            raise SystemMessageNotSupportedError("this model's chat format has no system message")
        beginning, start, end = (Control(token) for token in self.controls)
        yield beginning
        for turn in turns:
            yield start
            yield from joined((f"{self.roles[turn.role]}\n", *stripped(turn.parts)))
            yield end
            yield "\n"
        yield start
        yield "model\n"


class LlamaChat:
    """Llama 3, as Ovis1.6 was trained (not Llama's own template): text is stripped, a system turn always there."""

    default_system = "You are a helpful and honest multimodal assistant."
    controls = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")

    def pieces(self, turns: Sequence[Turn]) -> Pieces:
        """As `ChatFormat.pieces`."""
        beginning, start, end, end_of_turn = (Control(token) for token in self.controls)
        turns = _with_system(turns, self.default_system)
        yield beginning
        for turn in turns:
            yield start
            yield turn.role
            yield end
            yield from joined(("\n\n", *stripped(turn.parts)))
            yield end_of_turn
        yield start
        yield "assistant"
        yield end
        yield "\n\n"


CHAT_FORMATS: dict[LanguageModel, ChatFormat] = {"qwen2": QwenChat(), "gemma2": GemmaChat(), "llama": LlamaChat()}


def stripped(parts: Sequence[str | TiledImage]) -> list[str | TiledImage]:
    """Takes white space off both ends of a turn; pictures end it like any other character."""
    pieces = list(joined(parts))
    if pieces and isinstance(pieces[0], str):
        pieces[0] = pieces[0].lstrip()
    if pieces and isinstance(pieces[-1], str):
        pieces[-1] = pieces[-1].rstrip()
    return pieces


def _with_system(turns: Sequence[Turn], default: str) -> Sequence[Turn]:
    check_turns(turns)
    return turns if turns[0].role == "system" else (Turn("system", (default,)), *turns)
