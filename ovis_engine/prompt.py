"""Turns of text and pictures to token ids, in a language model's chat format (`ovis_engine.chat`).

Text is never searched for marks: a turn holds its pictures as values between its pieces of text, so a literal
``<image>`` or a special token typed by a user stays plain text. Only `place_images` reads marks, for callers who mean
them (the parity fixtures).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, Protocol, get_args

from tokenizers import AddedToken, Tokenizer

from ovis_engine.errors import CheckpointError, ImageCountMismatchError, RequestError
from ovis_engine.tiling import TiledImage

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)

#: Stands for one tile in a layout; the engine replaces it by tokens_per_tile ids (the reference's "atom").
TILE_ATOM = -300
#: Indicator tokens, as numbered by the reference: rows V-5 to V-1 of the visual embedding table.
IMAGE_START, AFTER_THUMBNAIL, COLUMN_SEPARATOR, ROW_SEPARATOR, IMAGE_END = -301, -302, -303, -304, -305

#: How a prompt's text form shows a picture.
IMAGE_MARK = "<image>"
#: Appended to a query that asks for step-by-step reasoning.
CHAIN_OF_THOUGHT_SUFFIX = (
    "\nProvide a step-by-step solution to the problem, and conclude with 'the answer is' followed by the final "
    "solution."
)


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        parts: Pieces of text and pictures in reading order; only user turns may hold pictures.
    """

    role: Role
    parts: tuple[str | TiledImage, ...]


@dataclass(frozen=True)
class Control:
    """A special token of the chat format, never made from a caller's text."""

    token: str


@dataclass(frozen=True)
class PromptLayout:
    """A prompt in token ids, its tiles still as atoms.

    Attributes:
        token_ids: Vocabulary ids, `TILE_ATOM` per tile and the negative indicator numbers.
        images: The pictures in the order of their atoms.
    """

    token_ids: tuple[int, ...]
    images: tuple[TiledImage, ...]

    @property
    def num_tiles(self) -> int:
        """Number of tiles over all pictures."""
        return sum(len(image.tiles) for image in self.images)

    def num_tokens(self, tokens_per_tile: int) -> int:
        """Sequence length once every atom has become its visual tokens."""
        return len(self.token_ids) + self.num_tiles * (tokens_per_tile - 1)


def image_turn(prompt: str, images: Sequence[TiledImage] = ()) -> Turn:
    """The user turn the models were trained on: pictures first, numbered if there are several."""
    if not images:
        return Turn("user", (prompt,))
    if len(images) == 1:
        return Turn("user", (images[0], "\n" + prompt))
    parts: list[str | TiledImage] = []
    for number, image in enumerate(images, start=1):
        parts += [f"Image {number}: ", image, "\n"]
    return Turn("user", (*parts, prompt))


def video_turn(prompt: str, frames: Sequence[TiledImage]) -> Turn:
    """The user turn for the frames of a clip: one picture a line, then the prompt."""
    parts: list[str | TiledImage] = []
    for frame in frames:
        parts += [frame, "\n"]
    return Turn("user", (*parts, prompt))


def place_images(text: str, images: Sequence[TiledImage]) -> tuple[str | TiledImage, ...]:
    """Puts pictures where the text has ``<image>`` marks. For text whose marks are the caller's own.

    Raises:
        ImageCountMismatchError: If marks and pictures differ in number.
    """
    chunks = text.split(IMAGE_MARK)
    if len(chunks) - 1 != len(images):
        raise ImageCountMismatchError(
            f"the text has {len(chunks) - 1} picture marks, but {len(images)} pictures were given"
        )
    parts: list[str | TiledImage] = [chunks[0]]
    for image, chunk in zip(images, chunks[1:], strict=True):
        parts += [image, chunk]
    return tuple(parts)


def picture_layout(rows: int, cols: int) -> list[int]:
    """Layout of one picture: indicators and one atom per tile."""
    if rows * cols == 1:
        return [IMAGE_START, TILE_ATOM, AFTER_THUMBNAIL, IMAGE_END]
    layout = [IMAGE_START, TILE_ATOM, AFTER_THUMBNAIL]
    for row in range(rows):
        layout += [TILE_ATOM, COLUMN_SEPARATOR] * (cols - 1) + [TILE_ATOM]
        if row < rows - 1:
            layout.append(ROW_SEPARATOR)
    return [*layout, IMAGE_END]


class ChatFormat(Protocol):
    """How a language model wants a conversation written."""

    @property
    def controls(self) -> tuple[str, ...]:
        """The special tokens that the format uses."""
        ...

    def pieces(self, turns: Sequence[Turn]) -> Iterator[str | TiledImage | Control]:
        """Yields a conversation as control tokens, text and pictures; text between two others is one piece.

        The pieces are exactly the chunks that the reference tokenises separately.

        Raises:
            RequestError: As `check_turns`, or if the format has no place for a turn.
        """
        ...


class Prompter:
    """Encodes conversations for a language model and decodes its output. Safe to call from any thread."""

    def __init__(self, tokenizer: Tokenizer, chat: ChatFormat) -> None:
        """Takes over the tokenizer; nobody else may change its settings afterwards.

        Raises:
            CheckpointError: If the tokenizer lacks a token of the chat format.
        """
        self._tokenizer, self._chat = tokenizer, chat
        self._control_ids = {token: self._control_id(token) for token in chat.controls}
        # Some tokenizer files leave the mark to another file; without it a typed control token would be a real one.
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in chat.controls])
        # With this on, a special token typed by a user is cut into plain text like anything else.
        tokenizer.encode_special_tokens = True
        # Left in the file by training, these would cut or fill prompts without a word.
        tokenizer.no_truncation()
        tokenizer.no_padding()

    @classmethod
    def from_checkpoint(cls, directory: Path, chat: ChatFormat) -> Prompter:
        """Reads ``tokenizer.json``.

        Raises:
            CheckpointError: If the file is missing or malformed, or lacks the chat format's tokens.
        """
        file = directory / "tokenizer.json"
        try:
            content = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise CheckpointError("cannot be read", file=file.name) from exc
        try:
            tokenizer = Tokenizer.from_str(content)
        except Exception as exc:
            raise CheckpointError("is not a tokenizer", file=file.name) from exc
        return cls(tokenizer, chat)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, for reading only."""
        return self._tokenizer

    def encode(self, turns: Sequence[Turn]) -> PromptLayout:
        """Encodes a conversation, generation prompt included.

        Raises:
            RequestError: As `ChatFormat.pieces`, or if a piece is no text, or holds half a surrogate pair.
        """
        token_ids: list[int] = []
        images: list[TiledImage] = []
        for piece in self._chat.pieces(turns):
            if isinstance(piece, Control):
                token_ids.append(self._control_ids[piece.token])
            elif isinstance(piece, TiledImage):
                token_ids += picture_layout(piece.rows, piece.cols)
                images.append(piece)
            else:
                token_ids += self._tokenizer.encode(_checked(piece), add_special_tokens=False).ids
        return PromptLayout(tuple(token_ids), tuple(images))

    def text(self, turns: Sequence[Turn]) -> str:
        """The conversation as the reference prints it: control tokens in words, pictures as marks.

        Raises:
            RequestError: As `ChatFormat.pieces`.
        """
        return "".join(
            piece.token if isinstance(piece, Control) else IMAGE_MARK if isinstance(piece, TiledImage) else piece
            for piece in self._chat.pieces(turns)
        )

    def decode(self, token_ids: Sequence[int]) -> str:
        """Decodes output ids to text without special tokens; broken UTF-8 becomes U+FFFD."""
        text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return text

    def _control_id(self, token: str) -> int:
        token_id: int | None = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise CheckpointError(f"has no token {token}", file="tokenizer.json")
        return token_id


def _checked(text: str) -> str:
    """Text that UTF-8 can hold; the tokenizer takes nothing else."""
    if not isinstance(text, str):
        raise RequestError(f"a prompt holds text and pictures, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise RequestError(f"the text has half a surrogate pair (U+{ord(text[exc.start]):04X})") from exc
    return text


def joined(parts: Sequence[str | TiledImage]) -> Iterator[str | TiledImage]:
    """Joins neighbouring text, which tokenises differently when it is cut; drops empty text."""
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
            continue
        if text:
            yield text
        text = ""
        yield part
    if text:
        yield text


def check_turns(turns: Sequence[Turn]) -> None:
    """Refuses a conversation that no chat format can write.

    Raises:
        RequestError: If it does not end with a user turn, a system turn is not first, user and assistant do not
            alternate, a role is another one, or a picture stands outside a user turn.
    """
    if any(turn.role not in ROLES for turn in turns):
        raise RequestError(f"a turn's role must be one of {', '.join(ROLES)}")
    if not turns or turns[-1].role != "user":
        raise RequestError("a conversation must end with a user turn")
    if any(turn.role == "system" for turn in turns[1:]):
        raise RequestError("only the first turn may be a system message")
    spoken = [turn for turn in turns if turn.role != "system"]
    if spoken[0].role != "user" or any(one.role == other.role for one, other in pairwise(spoken)):
        raise RequestError("user and assistant turns must alternate, user first")
    if any(turn.role != "user" and not all(isinstance(part, str) for part in turn.parts) for turn in turns):
        raise RequestError("only user turns may hold pictures")
