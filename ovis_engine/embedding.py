"""The wrapped token embedding: ids beyond the vocabulary read rows of the visual-embedding pool."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ovis_engine.errors import CheckpointError


class VisualEmbedding(nn.Module):
    """Text embedding for ids below the vocabulary size, pool rows for ids at or above it.

    The library batches, caches and resumes such ids like any other, so it serves pictures without knowing it. One
    thread writes rows that no running sequence uses while another reads others.
    """

    pool: Tensor

    def __init__(
        self, text: nn.Embedding, *, num_slots: int, rows_per_slot: int, indicators: Tensor, scale: float = 1.0
    ) -> None:
        """Makes an empty pool beside a text embedding.

        Args:
            text: The language model's embedding; stays its owner and keeps its tie to the head.
            num_slots: Tiles that fit into the pool.
            rows_per_slot: Visual tokens of a tile.
            indicators: (5, hidden) embeddings of the indicator tokens; they get the pool's last rows for good.
            scale: What the text embedding multiplies its rows with; everything that enters the pool gets it too.

        Raises:
            MemoryError: If the pool does not fit the device.
        """
        super().__init__()
        self.text = text
        self.base = text.num_embeddings
        self.rows_per_slot = rows_per_slot
        self.num_rows = num_slots * rows_per_slot + len(indicators)
        pool = _allocated(self.num_rows, text)
        # Rounded to the model's dtype first, as the text embedding does (59.87 is 59.75 in bfloat16).
        self._scale = float(torch.tensor(scale, dtype=pool.dtype))
        pool[num_slots * rows_per_slot :] = indicators * self._scale
        self.register_buffer("pool", pool, persistent=False)

    @property
    def weight(self) -> Tensor:
        """The text embedding's weight (vocabulary, hidden)."""
        return self.text.weight

    def indicator_id(self, index: int) -> int:
        """Token id of an indicator, 0 for image start to 4 for image end."""
        return self.base + self.num_rows - 5 + index

    def write(self, slot: int, rows: Tensor) -> None:
        """Puts a tile's visual embeddings (rows_per_slot, hidden), not scaled yet, into its slot."""
        start = slot * self.rows_per_slot
        self.pool[start : start + self.rows_per_slot] = rows * self._scale

    def forward(self, input_ids: Tensor) -> Tensor:
        """Maps integer ids (...) to embeddings (..., hidden) in the model's dtype."""
        visual = input_ids >= self.base
        if input_ids.device.type == "cpu" and not visual.any():
            # As in every step that only decodes.
            embedded: Tensor = self.text(input_ids)
            return embedded
        text = self.text(torch.where(visual, 0, input_ids))
        rows = self.pool[torch.where(visual, (input_ids - self.base) % self.num_rows, 0)]
        return torch.where(visual.unsqueeze(-1), rows, text)


def _allocated(rows: int, text: nn.Embedding) -> Tensor:
    try:
        return torch.zeros(rows, text.embedding_dim, dtype=text.weight.dtype, device=text.weight.device)
    except RuntimeError as exc:  # a CPU's allocator raises it as such, a GPU's as a kind of it
        raise MemoryError(f"a visual pool of {rows} rows of {text.embedding_dim} does not fit") from exc


def check_rows(token_ids: Iterable[int], rows: int, *, file: str) -> None:
    """Refuses a checkpoint whose text ids have no row in the embedding: they would be taken for visual ones.

    Args:
        token_ids: Ids that the file knows.
        rows: Rows of the text embedding; real ones have as many as there are ids, or more.
        file: Where the ids stand.

    Raises:
        CheckpointError: Names the file, the first such id and the rows.
    """
    strange = [token_id for token_id in token_ids if not 0 <= token_id < rows]
    if strange:
        raise CheckpointError(f"has token id {strange[0]}, but the embedding has {rows} rows", file=file)
