"""The vision front: from a request's tiles to token ids that stand for their visual embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ovis_engine.checkpoint import OvisModel
from ovis_engine.embedding import VisualEmbedding
from ovis_engine.prompt import IMAGE_START, TILE_ATOM, PromptLayout
from ovis_engine.slots import MAX_TOKEN_ID, IdsExhausted, PinnedTile, SlotTable
from ovis_engine.tiling import UInt8Array
from ovis_engine.turns import FreeTurns, Turns
from ovis_engine.vision import to_pixels


class VisionFront:
    """Pins tiles to pool slots and fills the slots. One thread may call it, except for `release`."""

    def __init__(
        self,
        model: OvisModel,
        *,
        pool_rows: int,
        batch_tiles: int,
        flush_prefix_cache: Callable[[], None],
        max_token_id: int = MAX_TOKEN_ID,
        turns: Turns | None = None,
    ) -> None:
        """Wraps the language model's embedding.

        Args:
            model: Its embedding is replaced by one that also reads the pool.
            pool_rows: Visual tokens that the pool shall hold; at least one tile is made to fit.
            batch_tiles: Most tiles per run of the tower; fewer from then on if the device's memory proves too small.
            flush_prefix_cache: Called when token ids are about to start over.
            max_token_id: Largest id that the decode loop can carry.
            turns: Taken for each run of the tower, if it must not run beside the decode loop.

        Raises:
            MemoryError: If the pool does not fit the device.
        """
        self.tokens_per_tile = model.config.vision.tokens_per_tile
        num_slots = max(1, pool_rows // self.tokens_per_tile)
        self._model = model
        self._batch_tiles = batch_tiles
        self._flush_prefix_cache = flush_prefix_cache
        self._turns = turns or FreeTurns()
        language_model = model.language_model
        self.embedding = VisualEmbedding(
            language_model.get_input_embeddings(),
            num_slots=num_slots,
            rows_per_slot=self.tokens_per_tile,
            indicators=model.encoder.indicators,
            scale=model.embed_scale,
        )
        language_model.set_input_embeddings(self.embedding)
        self.slots = SlotTable(
            num_slots=num_slots,
            rows_per_slot=self.tokens_per_tile,
            base=self.embedding.base,
            num_rows=self.embedding.num_rows,
            max_id=max_token_id,
        )
        self.encoded_tiles = 0

    def pin(self, layout: PromptLayout) -> list[PinnedTile] | None:
        """Pins the tiles of a prompt, all or none; None while too many slots are pinned by others.

        When token ids run out, the prefix cache is flushed first, so that no old id can be taken for a new one.
        """
        digests = [digest for image in layout.images for digest in image.tile_digests]
        try:
            return self.slots.acquire(digests)
        except IdsExhausted:
            rewindable = self.slots.rewindable()
            self._flush_prefix_cache()
            self.slots.rewind(rewindable)
            return self.slots.acquire(digests)

    def fill(self, layouts: Sequence[PromptLayout], pins: Sequence[Sequence[PinnedTile]]) -> None:
        """Runs the tower over the tiles of several prompts whose slots are fresh, and writes the pool."""
        fresh: dict[int, UInt8Array] = {}
        for layout, pinned in zip(layouts, pins, strict=True):
            tiles = [tile for image in layout.images for tile in image.tiles]
            fresh |= {pin.slot: tile for pin, tile in zip(pinned, tiles, strict=True) if pin.fresh}
        slots = list(fresh)
        while slots:
            chunk = slots[: self._batch_tiles]
            with self._turns.turn():
                fitted = self._fits(chunk, [fresh[slot] for slot in chunk])
            if fitted:
                del slots[: len(chunk)]
            else:
                self._batch_tiles = len(chunk) // 2

    def expand(self, layout: PromptLayout, pinned: Sequence[PinnedTile]) -> list[int]:
        """The prompt's final token ids: atoms become their tile's ids, indicators their fixed ids."""
        token_ids: list[int] = []
        tiles = iter(pinned)
        for token in layout.token_ids:
            if token == TILE_ATOM:
                first = next(tiles).first_id
                token_ids.extend(range(first, first + self.tokens_per_tile))
            elif token < 0:
                token_ids.append(self.embedding.indicator_id(IMAGE_START - token))
            else:
                token_ids.append(token)
        return token_ids

    def release(self, pinned: Sequence[PinnedTile]) -> None:
        """Unpins a prompt's tiles. Any thread."""
        self.slots.release(pinned)

    def _fits(self, slots: Sequence[int], tiles: Sequence[UInt8Array]) -> bool:
        """Runs the tower; False if the device's memory was too small for more than one tile.

        Raises:
            torch.OutOfMemoryError: It was too small for one.
        """
        try:
            self._encode(slots, tiles)
        except torch.OutOfMemoryError:
            if len(slots) == 1:
                raise
            return False
        return True

    @torch.inference_mode()
    def _encode(self, slots: Sequence[int], tiles: Sequence[UInt8Array]) -> None:
        weight = self._model.encoder.table
        pixels = to_pixels(tiles, self._model.config).to(device=weight.device, dtype=weight.dtype)
        for slot, rows in zip(slots, self._model.encoder(pixels), strict=True):
            self.embedding.write(slot, rows)
        if weight.device.type == "cuda":
            # The decode loop reads the pool on its own stream.
            torch.cuda.current_stream(weight.device).synchronize()
        self.encoded_tiles += len(slots)
