"""The language model's lesson: visual words in, transcript out; and what it is helped with on the way.

Blank patches are mostly left out (the others keep their positions, so rotary distances are the real ones). Helps that
only training has: two heads of one layer are drawn to the patch whose first, or second, symbol is to be written, and
two probes ask, a layer earlier, for the line and place that the text has come to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from ovis_engine.checkpoint import OvisModel
from ovis_engine.prompt import IMAGE_START, TILE_ATOM
from tools.reader.layout import PATCHES
from tools.reader.prompts import text_ids
from tools.reader.shape import END_OF_TURN, TEXT_HEADS, TEXT_WIDTH
from tools.reader.tower_stage import Symbols
from tools.reader.vocabulary import FIRST_PLACE, LINE, MAX_LINES, MAX_PLACES

#: Layer whose heads 0 and 1 point at patches; the probes read what goes into it.
POINTING_LAYER = 2
HEAD_WIDTH = TEXT_WIDTH // TEXT_HEADS
#: "No such thing here": not counted in a loss.
NOTHING = -100


@dataclass(frozen=True)
class Transcript:
    """What is to be written for one page, a row per token, the end of the turn last.

    Attributes:
        tokens: Token ids.
        lines: Line of each.
        places: Place of each in its line.
        patches: Patch number that shows it.
        slots: 0 if it is that patch's first symbol, 1 if its second.
    """

    tokens: tuple[int, ...]
    lines: tuple[int, ...]
    places: tuple[int, ...]
    patches: tuple[int, ...]
    slots: tuple[int, ...]


def transcript_of(text: str, symbols: Symbols) -> Transcript:
    """The transcript of a page; an empty page's is the end alone, shown nowhere."""
    tokens = [*text_ids(text), END_OF_TURN]
    if not symbols:
        return Transcript(tuple(tokens), (0,), (0,), (NOTHING,), (0,))
    rows = sorted(
        (symbol.line, symbol.place, row * PATCHES + column, slot)
        for (row, column), held in symbols.items()
        for slot, symbol in enumerate(held)
    )
    if len(rows) != len(tokens):
        raise ValueError(f"{len(rows)} symbols for {len(tokens)} tokens")
    lines, places, patches, slots = zip(*rows, strict=True)
    return Transcript(tuple(tokens), lines, places, patches, slots)


class Probes(nn.Module):
    """Asks hidden states for the line and place of the token to be written."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.place = nn.Linear(TEXT_WIDTH, MAX_LINES), nn.Linear(TEXT_WIDTH, MAX_PLACES)

    def begin_with(self, table: Tensor) -> None:
        """Starts from the very vectors that visual words use, so that counting aims at addresses."""
        with torch.no_grad():
            self.line.weight.copy_(table[LINE:FIRST_PLACE] * 0.1)
            self.place.weight.copy_(table[FIRST_PLACE : FIRST_PLACE + MAX_PLACES] * 0.1)
            self.line.bias.zero_()
            self.place.bias.zero_()


@dataclass(frozen=True)
class Copied:
    """A batch that went through the language model.

    Attributes:
        logits: (n, length, tokens of the vocabulary), float32.
        pointed: Attention (n, 2, length, kept patches) of the pointing heads.
        hidden: What goes into the pointing layer at the positions that write, (n, length, width).
    """

    logits: Tensor
    pointed: Tensor
    hidden: Tensor


def copy_out(
    model: OvisModel, prompt: Sequence[int], words: Tensor, patches: Tensor, transcripts: Sequence[Transcript]
) -> Copied:
    """Runs the language model over pages and their true transcripts.

    Args:
        model: Engine's model; its language model and embedding table are used.
        prompt: Token ids with one tile's atom and its indicators.
        words: Probabilities of visual words (n, kept, words).
        patches: Numbers (n, kept) of the patches they belong to, rising.
        transcripts: What is to be written, one per page.
    """
    count, kept = patches.shape
    length = max(len(transcript.tokens) for transcript in transcripts)
    rows = [_padded(transcript.tokens[:-1], length - 1, 0) for transcript in transcripts]
    written = torch.tensor(rows, dtype=torch.long)
    before, after = _around_tile(model, prompt)
    hidden = torch.cat(
        [
            before.expand(count, -1, -1),
            model.encoder.embed(words),
            after.expand(count, -1, -1),
            model.language_model.get_input_embeddings()(written),
        ],
        dim=1,
    )
    first = before.shape[0]
    rest = first + PATCHES * PATCHES + torch.arange(after.shape[0] + length - 1)
    positions = torch.cat([torch.arange(first).expand(count, -1), first + patches, rest.expand(count, -1)], dim=1)
    return _run(model, hidden, positions, length, slice(first, first + kept))


def _around_tile(model: OvisModel, prompt: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Embeddings of what stands before and after the tile, each (tokens, width)."""
    embeddings, indicators = model.language_model.get_input_embeddings(), model.encoder.indicators
    rows = [
        indicators[IMAGE_START - token] if token < 0 else embeddings.weight[token]
        for token in prompt
        if token != TILE_ATOM
    ]
    stacked, atom = torch.stack(rows), list(prompt).index(TILE_ATOM)
    return stacked[:atom], stacked[atom:]


def _run(model: OvisModel, hidden: Tensor, positions: Tensor, length: int, tile: slice) -> Copied:
    """The layers one by one, as the library runs them; positions have gaps, which its own loop would misread."""
    decoder = model.language_model.model
    rotary = decoder.rotary_emb(hidden, positions)
    for number, layer in enumerate(decoder.layers):
        if number == POINTING_LAYER:
            entering = hidden[:, -length:]
            pointed = _pointing(layer, hidden, rotary, length)[..., tile]
        hidden = layer(hidden, attention_mask=None, position_embeddings=rotary)
    logits: Tensor = model.language_model.lm_head(decoder.norm(hidden[:, -length:]))
    return Copied(logits.float(), pointed, entering)


def _pointing(layer: Any, hidden: Tensor, rotary: tuple[Tensor, Tensor], length: int) -> Tensor:
    """Attention (n, 2, length, tokens) of heads 0 and 1 from the last positions."""
    normed, attention = layer.input_layernorm(hidden), layer.self_attn
    count, tokens, _ = normed.shape
    query, key = (
        functional.linear(normed, projection.weight[: 2 * HEAD_WIDTH], projection.bias[: 2 * HEAD_WIDTH])
        .view(count, tokens, 2, HEAD_WIDTH)
        .transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj)
    )
    query, key = apply_rotary_pos_emb(query, key, *rotary)
    scores = (query[:, :, -length:] @ key.transpose(2, 3)).float() * HEAD_WIDTH**-0.5
    unseen = torch.ones(length, tokens, dtype=torch.bool).triu(tokens - length + 1)
    shares: Tensor = scores.masked_fill(unseen, -torch.inf).softmax(-1)
    return shares


def lesson_loss(
    copied: Copied, patches: Tensor, transcripts: Sequence[Transcript], probes: Probes | None, pointing_weight: float
) -> tuple[Tensor, dict[str, float]]:
    """Loss of a batch: cross-entropy of the transcript, plus the helps.

    Args:
        copied: What the model made of it.
        patches: As for `copy_out`.
        transcripts: As for `copy_out`.
        probes: Asked for line and place; None to ask nothing.
        pointing_weight: Weight of the pointing heads' loss.
    """
    length = copied.logits.shape[1]
    tokens, lines, places, shown, slots = (
        torch.tensor([_padded(getattr(transcript, name), length, NOTHING) for transcript in transcripts])
        for name in ("tokens", "lines", "places", "patches", "slots")
    )
    loss = functional.cross_entropy(copied.logits.flatten(0, 1), tokens.flatten(), ignore_index=NOTHING)
    hits = (copied.logits.argmax(-1) == tokens)[tokens >= 0]
    figures = {"writing": loss.item(), "right": hits.float().mean().item()}
    match = (patches[:, None] == shown[..., None]) & (shown[..., None] >= 0)  # (n, length, kept)
    mass = torch.where((slots == 1)[..., None], copied.pointed[:, 1], copied.pointed[:, 0])
    found = (mass * match).sum(-1)[match.any(-1)]
    figures["pointing"] = found.mean().item()
    loss = loss - pointing_weight * (found + 1e-4).log().mean()
    if probes is not None:
        for name, probe, wanted in (("line", probes.line, lines), ("place", probes.place, places)):
            asked = functional.cross_entropy(
                probe(copied.hidden).float().flatten(0, 1), wanted.flatten(), ignore_index=NOTHING
            )
            figures[name] = asked.item()
            loss = loss + 0.3 * asked
    return loss, figures


def _padded(values: Sequence[int], length: int, filler: int) -> list[int]:
    return [*values, *[filler] * (length - len(values))]
