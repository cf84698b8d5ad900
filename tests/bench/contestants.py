"""What is measured against each other: the model card's way of running Ovis, and the engine.

Both use the same tiling, vision tower and visual head, packed and run by the same code, and the same language model,
so that a ratio between them is that of how requests are batched and of what that makes of the language model's steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ovis_engine.chat import QwenChat
from ovis_engine.checkpoint import load_model
from ovis_engine.engine import Engine
from ovis_engine.packing import pack_linears, packing_pays
from ovis_engine.prompt import IMAGE_START, TILE_ATOM, Prompter, PromptLayout
from ovis_engine.request import EngineConfig, Request
from ovis_engine.tiling import tile_image
from ovis_engine.vision import to_pixels
from tests.bench.workload import BenchRequest


class Contestant(Protocol):
    """Something that answers the whole workload; a context manager that frees what it holds."""

    def run(self, requests: Sequence[BenchRequest]) -> list[list[int]]:
        """Generates every request's tokens, exactly as many as it asks for."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class StaticBatches:
    """The model card's batch inference: left-padded ``generate()`` that ends when the longest row does."""

    def __init__(self, checkpoint: Path, dtype: str, batch_size: int) -> None:
        """Loads the model; a batch size of 1 is the model card's one-by-one."""
        self._model = load_model(checkpoint, device=torch.device("cpu"), dtype=getattr(torch, dtype))
        if packing_pays(self._model.language_model.device, self._model.language_model.dtype):
            pack_linears(self._model.encoder)
        self._prompter = Prompter.from_checkpoint(checkpoint, QwenChat())
        self._batch_size = batch_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def run(self, requests: Sequence[BenchRequest]) -> list[list[int]]:
        """Batches in order of arrival."""
        tokens: list[list[int]] = []
        for start in range(0, len(requests), self._batch_size):
            tokens += self._run_batch(requests[start : start + self._batch_size])
        return tokens

    @torch.inference_mode()
    def _run_batch(self, batch: Sequence[BenchRequest]) -> list[list[int]]:
        side = self._model.config.vision.image_size
        layouts = [self._prompter.encode(as_request(request, side).conversation()) for request in batch]
        rows = self._embed(layouts)
        # pad_sequence pads at the end: the rows go in and come out reversed.
        embeddings = pad_sequence([row.flip(0) for row in rows], batch_first=True).flip(1)
        mask = pad_sequence([torch.ones(len(row)).flip(0) for row in rows], batch_first=True).flip(1).long()
        longest = max(request.output_tokens for request in batch)
        generated = self._model.language_model.generate(
            inputs_embeds=embeddings,
            attention_mask=mask,
            max_new_tokens=longest,
            min_new_tokens=longest,
            do_sample=False,
            pad_token_id=0,
        )
        return [row[: request.output_tokens].tolist() for row, request in zip(generated, batch, strict=True)]

    def _embed(self, layouts: Sequence[PromptLayout]) -> list[Tensor]:
        """Embeddings (tokens, hidden) of each prompt; the tiles of all go through the tower together."""
        encoder = self._model.encoder
        tiles = [tile for layout in layouts for image in layout.images for tile in image.tiles]
        pixels = to_pixels(tiles, self._model.config).to(encoder.table.dtype)
        visual = iter(encoder(pixels))
        return [self._embed_one(layout, visual) for layout in layouts]

    def _embed_one(self, layout: PromptLayout, visual: Iterator[Tensor]) -> Tensor:
        text = self._model.language_model.get_input_embeddings()
        rows = []
        for token in layout.token_ids:
            if token == TILE_ATOM:
                rows.append(next(visual))
            elif token < 0:
                rows.append(self._model.encoder.indicators[IMAGE_START - token].unsqueeze(0))
            else:
                rows.append(text(torch.tensor([token])))
        return torch.cat(rows)


class Ours:
    """The engine: all requests at once."""

    def __init__(self, checkpoint: Path, config: EngineConfig) -> None:
        """Loads the model and starts the engine."""
        self.engine = Engine.from_pretrained(checkpoint, config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()

    def run(self, requests: Sequence[BenchRequest]) -> list[list[int]]:
        """Submits everything, then waits."""
        futures = [self.engine.submit(as_request(request, self.engine.side)) for request in requests]
        return [list(future.result().token_ids) for future in futures]


def as_request(request: BenchRequest, side: int) -> Request:
    """What the engine is asked; tiling is part of the work."""
    tiled = tile_image(request.picture, side=side, max_partition=9)
    return Request(prompt=request.prompt, images=(tiled,), max_new_tokens=request.output_tokens, ignore_eos=True)
