"""Where training from nothing begins: weights that already do the obvious, so that hours are not spent on it.

The tower starts with cosine patch filters, a clean code of each patch's position, and heads that look at neighbouring
patches; the language model with one vector shared by a character's token, visual word and output row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ovis_engine.aimv2 import Aimv2Block, Aimv2Tower
from ovis_engine.checkpoint import OvisModel
from tools.reader.copying import HEAD_WIDTH, POINTING_LAYER
from tools.reader.layout import PATCH, PATCHES
from tools.reader.prompts import text_ids
from tools.reader.shape import END_OF_TURN, TEXT_WIDTH, TOWER_WIDTH
from tools.reader.vocabulary import (
    BLANK,
    FIRST_SYMBOL,
    LINE,
    LINE_END,
    NUM_SYMBOLS,
    PAGE_END,
    SECOND_SYMBOL,
)

#: Dimensions at the end of the tower's width that hold a patch's position, and waves per direction in them.
POSITION_WIDTH = 24
WAVES = POSITION_WIDTH // 4
CONTENT_WIDTH = TOWER_WIDTH - POSITION_WIDTH

#: Blocks whose heads look at the eight patches around, and where (down, right) those are.
NEAR_BLOCKS = 2
NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def begin_tower(model: OvisModel, seed: int) -> None:
    """Sets tower and head, in place."""
    torch.manual_seed(seed)
    encoder = model.encoder
    tower = encoder.tower
    assert isinstance(tower, Aimv2Tower)
    with torch.no_grad():
        for parameter in [*tower.parameters(), encoder.head_linear.weight]:
            if parameter.dim() == 2:
                parameter.normal_(0, parameter.shape[1] ** -0.5)
            else:
                parameter.fill_(1.0)
        _begin_patches(tower)
        for number, block in enumerate(tower.blocks):
            assert isinstance(block, Aimv2Block)
            _begin_block(block, number)
        encoder.head_norm.weight.fill_(1.5)
        encoder.head_norm.bias.zero_()
        encoder.head_norm.bias[BLANK] = 1.0


def begin_words(model: OvisModel, seed: int) -> None:
    """Sets language model and visual embedding table, in place."""
    torch.manual_seed(seed)
    language_model, table = model.language_model, model.encoder.table
    with torch.no_grad():
        for name, parameter in language_model.named_parameters():
            if parameter.dim() == 2:
                smaller = 0.5 if "o_proj" in name or "down_proj" in name else 1.0
                parameter.normal_(0, smaller * parameter.shape[1] ** -0.5)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        embedding, head = language_model.get_input_embeddings().weight, language_model.lm_head.weight
        embedding.normal_(0, 0.5)
        head.normal_(0, 0.02)
        table.normal_(0, 1.5)
        table[LINE:] *= 1.2
        for code in range(NUM_SYMBOLS):
            vector, token = torch.randn(TEXT_WIDTH), token_of(code)
            embedding[token], head[token] = vector * 0.7, vector * 0.08
            table[FIRST_SYMBOL + code] = 2 * vector
            table[SECOND_SYMBOL + code] = torch.randn(TEXT_WIDTH) + vector
        pointing = language_model.model.layers[POINTING_LAYER].self_attn
        pointing.k_proj.weight[: 2 * HEAD_WIDTH] = pointing.q_proj.weight[: 2 * HEAD_WIDTH]


def token_of(code: int) -> int:
    """The token that writes a symbol."""
    if code == PAGE_END:
        return END_OF_TURN
    return text_ids("\n" if code == LINE_END else chr(code + 32))[0]


def _begin_patches(tower: Aimv2Tower) -> None:
    """Cosine filters of rising frequency for what a patch shows, sines and cosines for where it is."""
    steps = torch.arange(PATCH)
    waves = torch.cos(math.pi / PATCH * (steps[None] + 0.5) * steps[:, None]) * (2 / PATCH) ** 0.5
    waves[0] *= 0.5**0.5
    order = sorted(
        ((down, right) for down in range(PATCH) for right in range(PATCH)), key=lambda f: f[0] ** 2 + f[1] ** 2
    )
    filters = torch.stack([waves[down][:, None] * waves[right] for down, right in order[:CONTENT_WIDTH]])
    filters[0] *= 0.25
    weight, bias = tower.patch_proj.weight, tower.patch_proj.bias
    assert bias is not None
    weight.zero_()
    weight[:CONTENT_WIDTH] = filters[:, None] / 3 + torch.randn(CONTENT_WIDTH, 3, PATCH, PATCH) * 0.002
    bias.zero_()
    bias[:CONTENT_WIDTH] = 0.1
    across = torch.arange(PATCHES * PATCHES)
    tower.position[:, :CONTENT_WIDTH].normal_(0, 0.02)
    tower.position[:, CONTENT_WIDTH:] = torch.cat([_code(across // PATCHES), _code(across % PATCHES)], dim=1)


def _frequencies() -> Tensor:
    return (2 * torch.arange(WAVES) + 1) * (2 * math.pi / (2 * PATCHES + 2))


def _code(coordinate: Tensor) -> Tensor:
    """Odd waves (n, 2 * WAVES) of a coordinate; none repeats within a tile."""
    angles = coordinate[:, None] * _frequencies()
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _shifted(offset: int) -> Tensor:
    """Matrix that makes a query match the key whose coordinate is larger by an offset."""
    angles = _frequencies() * offset
    turns = [torch.tensor([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]]) for a in angles.tolist()]
    return _block_diagonal(*turns)


def _before() -> Tensor:
    """Matrix that makes a query match all keys of a smaller coordinate evenly: a square wave from odd waves."""
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    return _block_diagonal(*(turn * 2 / (2 * wave + 1) for wave in range(WAVES)))


def _block_diagonal(*blocks: Tensor) -> Tensor:
    joined: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return joined


def _begin_block(block: Aimv2Block, number: int) -> None:
    """Heads of the first blocks look at the eight neighbours; of later ones at what is beside, before and above."""
    heads, width = block.num_heads, TOWER_WIDTH // block.num_heads
    nothing, here = torch.zeros(2 * WAVES, 2 * WAVES), _shifted(0)
    near = number < NEAR_BLOCKS
    if near:
        looks: list[tuple[Tensor, Tensor] | None] = [(_shifted(down), _shifted(right)) for down, right in NEIGHBOURS]
    else:
        beside = [(here, _shifted(right)) for right in (-1, 1, -2)]
        looks = [*beside, (here, _before()), (here, nothing), (_before(), nothing), None, None]
    query, key, value = block.qkv.weight.chunk(3)
    sharpness = min(7.0, 4.2 + number)
    for head, look in zip(range(heads), looks, strict=True):
        rows = slice(head * width, (head + 1) * width)
        if look is None:
            query[rows] *= 0.5
            continue
        wanted, offered = torch.zeros(width, TOWER_WIDTH), torch.zeros(width, TOWER_WIDTH)
        wanted[:POSITION_WIDTH, CONTENT_WIDTH:] = sharpness * _block_diagonal(*look)
        offered[:POSITION_WIDTH, CONTENT_WIDTH:] = sharpness * torch.eye(POSITION_WIDTH)
        query[rows] = wanted + 0.02 * torch.randn(width, TOWER_WIDTH)
        key[rows] = offered + 0.02 * torch.randn(width, TOWER_WIDTH)
        if near:
            # A head is narrow: each block brings the next finer share of what a neighbour shows.
            value[rows] = 0
            value[rows, 1 + number * width : 1 + (number + 1) * width] = torch.eye(width)
    nn.init.orthogonal_(block.proj.weight, 0.7 if near else 0.4)
    block.fc2.weight *= 0.5
    # Positions stay clean: no layer writes over them.
    block.proj.weight[CONTENT_WIDTH:] = 0
    block.fc2.weight[CONTENT_WIDTH:] = 0
