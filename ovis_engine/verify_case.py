"""Checks of one parity case: prompt, picture front, logits and output, each within the fixtures' tolerances."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ovis_engine.checkpoint import OvisModel
from ovis_engine.config import OvisConfig
from ovis_engine.families import Family
from ovis_engine.prompt import (
    IMAGE_MARK,
    IMAGE_START,
    TILE_ATOM,
    Prompter,
    PromptLayout,
    Role,
    Turn,
    place_images,
)
from ovis_engine.tiling import TiledImage, tile_image, to_rgb
from ovis_engine.vision import to_pixels

#: Absolute tolerances, from the fixtures' README.
PIXELS, PIXELS_F16, FEATURES, EMBEDS, LOGITS = 1e-5, 2e-3, 2e-4, 1e-5, 5e-4
#: Tolerance of means and standard deviations, relative to the larger of the two: a mean near zero has no scale itself.
MOMENTS = 1e-4
#: Share of a tile's visual words whose argmax must agree.
ARGMAX_SHARE = 0.99
#: Neighbouring top-20 logits closer than this may swap places.
ORDER_MARGIN = 1e-3

ROLES: dict[str, Role] = {"system": "system", "human": "user", "gpt": "assistant"}

CaseFiles = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """A parity case with its pictures tiled and its prompt encoded.

    Attributes:
        name: The case's id.
        expected: The fixture's values.
        turns: The conversation.
        text: The prompt in words.
        layout: The encoded prompt.
        failures: What the pictures' sizes, modes and hashes already got wrong.
        decoder_differs: Whether a JPEG decodes to other pixels here than for the fixtures.
        kept: Positions kept of a prompt longer than the case allows (the reference's truncation), None for all.
    """

    name: str
    expected: dict[str, Any]
    turns: tuple[Turn, ...]
    text: str
    layout: PromptLayout
    failures: tuple[str, ...]
    decoder_differs: bool
    kept: slice | None


def read_case(raw: dict[str, Any], images: Path, prompter: Prompter, config: OvisConfig) -> Case:
    """Opens a case's pictures and encodes its prompt; extremes hold their values under ``expected``."""
    expected = raw | raw.get("expected", {})
    failures: list[str] = []
    decoder_differs = False
    tiled: list[TiledImage] = []
    for index, name in enumerate(raw["images"]):
        with Image.open(images / name) as image:
            found = (list(image.size), image.mode)
            sha256 = hashlib.sha256(to_rgb(image).tobytes()).hexdigest()
            tiled.append(tile_image(image, side=config.vision.image_size, max_partition=raw["max_partition"]))
        if found != (raw["image_sizes"][index], raw["image_modes"][index]):
            failures.append(f"{name} is {found}")
        if sha256 != raw["image_rgb_sha256"][index]:
            if name.endswith((".jpg", ".jpeg")):
                decoder_differs = True
            else:
                failures.append(f"{name} has other RGB bytes")
    turns = _turns(raw, tiled)
    return Case(
        name=raw["id"],
        expected=expected,
        turns=turns,
        text=prompter.text(turns),
        layout=prompter.encode(turns),
        failures=tuple(failures),
        decoder_differs=decoder_differs,
        kept=_kept(raw.get("multimodal_max_length"), config.family),
    )


def check_front(case: Case, model: OvisModel, files: CaseFiles) -> tuple[list[str], Tensor | None]:
    """Checks all up to the language model's input.

    Returns:
        The failures, and the input embeddings (tokens, hidden), scaled, unless the layout is already wrong.
    """
    expected, config = case.expected, model.config
    failures = [*case.failures, *_check_prompt(case, config.vision.tokens_per_tile)]
    if failures:
        return failures, None
    tiles = [tile for image in case.layout.images for tile in image.tiles]
    visual = torch.zeros(0, config.vision.tokens_per_tile, config.hidden_size)
    if tiles:
        pixels = to_pixels(tiles, config)
        features, visual, argmax = _encode(model, pixels)
        compared = [] if case.decoder_differs else _check_visual(case, pixels, features, visual, argmax, files)
        failures += compared
    embeds = _input_embeds(model, case.layout, visual)
    if case.kept is not None:
        embeds = embeds[case.kept]
    if "inputs_embeds" in expected and not case.decoder_differs:
        failures += _compare_summary("inputs_embeds", embeds, expected["inputs_embeds"], EMBEDS)
    return failures, embeds * model.embed_scale


@torch.inference_mode()
def check_logits(case: Case, model: OvisModel, embeds: Tensor, files: CaseFiles) -> list[str]:
    """Checks the first output position's logits, computed without a cache."""
    logits = model.language_model(inputs_embeds=embeds[None], use_cache=False, logits_to_keep=1).logits[0, -1]
    failures: list[str] = []
    stored = files.get(f"first_logits/{case.name}")
    if stored is not None:
        failures += _compare("first_logits", logits, stored, LOGITS)
    top = case.expected["first_logits_top20"]
    failures += _compare("first_logits_top20", logits[top["ids"]], np.array(top["values"], np.float32), LOGITS)
    order = logits.topk(len(top["ids"])).indices.tolist()
    values = top["values"]
    for rank, (found, wanted) in enumerate(zip(order, top["ids"], strict=True)):
        gaps = [abs(values[rank] - values[near]) for near in (rank - 1, rank + 1) if 0 <= near < len(values)]
        if found != wanted and min(gaps) > ORDER_MARGIN:
            failures.append(f"first_logits_top20: rank {rank} is {found}, not {wanted}")
    return failures + _compare_moments("first_logits", logits, case.expected["first_logits"])


def check_output(expected: dict[str, Any], token_ids: tuple[int, ...], prompter: Prompter) -> list[str]:
    """Checks greedy tokens up to the stable prefix, and the text if all tokens are stable."""
    stable, wanted = expected["stable_prefix"], expected["greedy_ids"]
    if list(token_ids[:stable]) != wanted[:stable]:
        first = next(i for i, token in enumerate(wanted) if i >= len(token_ids) or token_ids[i] != token)
        return [f"greedy tokens differ from position {first} on (stable up to {stable})"]
    if list(token_ids) == wanted and prompter.decode(token_ids) != expected["greedy_text"]:
        return ["greedy text differs although the tokens are equal"]
    return []


@torch.inference_mode()
def greedy_alone(case: Case, model: OvisModel, embeds: Tensor) -> tuple[int, ...]:
    """Greedy tokens by plain ``generate()``, for the truncated prompt that the engine refuses by design."""
    count = len(case.expected["greedy_ids"])
    mask = torch.ones(1, len(embeds), dtype=torch.long)
    output = model.language_model.generate(
        inputs_embeds=embeds[None],
        attention_mask=mask,
        max_new_tokens=count,
        min_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return tuple(output[0].tolist())


def _turns(raw: dict[str, Any], tiled: list[TiledImage]) -> tuple[Turn, ...]:
    if raw.get("conversations") is None:
        return (Turn("user", place_images(raw["query"], tiled)),)
    turns, left = [], list(tiled)
    for said in raw["conversations"]:
        count = said["value"].count(IMAGE_MARK)
        turns.append(Turn(ROLES[said["from"]], place_images(said["value"], left[:count])))
        left = left[count:]
    return tuple(turns)


def _kept(max_tokens: int | None, family: Family) -> slice | None:
    """Ovis2's code keeps the last positions of a prompt that is too long, Ovis1.6's the first."""
    if max_tokens is None:
        return None
    return slice(-max_tokens, None) if family == "ovis2" else slice(max_tokens)


def _check_prompt(case: Case, tokens_per_tile: int) -> list[str]:
    expected, layout = case.expected, case.layout
    num_tokens = layout.num_tokens(tokens_per_tile)
    found = {
        "prompt": case.text,
        "input_ids": list(layout.token_ids),
        "num_atoms": layout.num_tiles,
        "grids": [[image.rows, image.cols] for image in layout.images],
        "prompt_tokens_expanded": len(range(num_tokens)[case.kept or slice(None)]),
    }
    return [f"{field} is {value!r}" for field, value in found.items() if value != expected[field]]


@torch.inference_mode()
def _encode(model: OvisModel, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Head inputs and visual embeddings of all tiles, and the first tile's most likely visual words."""
    features, embeds, argmax = [], [], torch.empty(0)
    for chunk in torch.split(pixels, 8):
        features.append(model.encoder.features(chunk))
        probabilities = model.encoder.probabilities(features[-1])
        embeds.append(model.encoder.embed(probabilities))
        if not len(argmax):
            argmax = probabilities[0].argmax(-1)
    return torch.cat(features), torch.cat(embeds), argmax


def _input_embeds(model: OvisModel, layout: PromptLayout, visual: Tensor) -> Tensor:
    """Puts text, indicator and visual embeddings in a row, unscaled, without the engine's pool: (tokens, hidden)."""
    text = model.language_model.get_input_embeddings().weight
    atoms = iter(visual)
    rows = []
    for token in layout.token_ids:
        if token == TILE_ATOM:
            rows.append(next(atoms))
        else:
            rows.append(text[token : token + 1] if token >= 0 else model.encoder.indicators[[IMAGE_START - token]])
    return torch.cat(rows)


def _check_visual(
    case: Case, pixels: Tensor, features: Tensor, visual: Tensor, argmax: Tensor, files: CaseFiles
) -> list[str]:
    expected = case.expected
    failures = _compare_summary("pixel_values", pixels, expected["pixel_values"], PIXELS)
    pooled = avg_pool2d(pixels.double(), pixels.shape[-1] // 16)
    for key, value, tolerance in (
        ("pool16", pooled, PIXELS),
        ("full_f16", pixels, PIXELS_F16),
        ("visual_embeds", visual, EMBEDS),
    ):
        stored = files.get(f"{key}/{case.name}")
        if stored is not None:
            failures += _compare(key, value, stored, tolerance)
    if "visual_features" in expected:
        failures += _compare_summary("visual_features", features, expected["visual_features"], FEATURES)
    failures += _compare_summary("visual_embeds", visual, expected["visual_embeds"], EMBEDS)
    words = expected.get("visual_tokens_argmax_first_atom")
    if words is not None:
        share = (argmax == torch.tensor(words)).float().mean().item()
        if share < ARGMAX_SHARE:
            failures.append(f"visual_tokens_argmax_first_atom: {share:.1%} equal")
    return failures


def _compare(name: str, found: Tensor, stored: npt.NDArray[Any], tolerance: float) -> list[str]:
    if tuple(found.shape) != stored.shape:
        return [f"{name}: shape {tuple(found.shape)}, not {stored.shape}"]
    worst = float(np.abs(found.detach().numpy() - stored.astype(np.float32)).max())
    return [] if worst <= tolerance else [f"{name}: off by {worst:.2e}, {tolerance:.0e} is allowed"]


def _compare_summary(name: str, found: Tensor, summary: dict[str, Any], tolerance: float) -> list[str]:
    if list(found.shape) != summary["shape"]:
        return [f"{name}: shape {list(found.shape)}, not {summary['shape']}"]
    flat = found.detach().reshape(-1)
    sample = flat[(12345 + 1000003 * torch.arange(64)) % flat.numel()]
    stored = np.array(summary["sample64"], np.float32)
    return _compare(name, sample, stored, tolerance) + _compare_moments(name, flat, summary)


def _compare_moments(name: str, found: Tensor, summary: dict[str, Any]) -> list[str]:
    wide = found.double()
    moments = {"mean": wide.mean().item(), "std": wide.std(correction=0).item()}
    return [
        f"{name}: {key} {value:.6g}, not {summary[key]:.6g}"
        for key, value in moments.items()
        if abs(value - summary[key]) > MOMENTS * max(abs(summary["mean"]), summary["std"])
    ]
