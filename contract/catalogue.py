"""The models that may be served: names, sizes and the figures the queue needs.

Source of the figures: the models' published configs (see the table in ``docs/models.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TaskKind = Literal["image", "video", "document", "text"]


@dataclass(frozen=True)
class ModelCard:
    """One model of the catalogue.

    Attributes:
        name: Name in the API; also the name of its queue.
        hub_id: Repository of the original checkpoint, or None for the bundled model.
        params_b: Parameters, in 10^9.
        context_tokens: Longest prompt plus output.
        tile_side: Side of a tile, in pixels.
        tokens_per_tile: Visual tokens that one tile becomes.
        max_partition: Most tiles of a grid that a task may ask for.
        default_max_new_tokens: Output limit where the task names none.
        description: One line for people.
        prompts: Family whose prompts it is asked with: a file in ``contract/prompts``.
    """

    name: str
    hub_id: str | None
    params_b: float
    context_tokens: int
    tile_side: int
    tokens_per_tile: int
    description: str
    prompts: str
    max_partition: int = 16
    default_max_new_tokens: int = 1024
    kinds: tuple[TaskKind, ...] = ("image", "video", "document", "text")

    def partition_for(self, num_images: int) -> int:
        """Default max_partition: 9 for one image, 4 for several, as the reference does, within the model's limit."""
        return min(self.max_partition, 9 if num_images == 1 else 4)


def _ovis2(size: str, params_b: float, tower: str, language: str) -> ModelCard:
    return ModelCard(
        name=f"ovis2-{size.lower()}",
        hub_id=f"AIDC-AI/Ovis2-{size}",
        params_b=params_b,
        context_tokens=32768,
        tile_side=448,
        tokens_per_tile=256,
        description=f"Ovis2 {size}: {tower} and {language}",
        prompts="ovis2",
    )


def _ovis16(name: str, hub_id: str, params_b: float, language: str) -> ModelCard:
    return ModelCard(
        name=name,
        hub_id=hub_id,
        params_b=params_b,
        context_tokens=8192,
        tile_side=384,
        tokens_per_tile=196,
        description=f"Ovis1.6: SigLIP-so400m and {language}",
        prompts="ovis1.6",
    )


CATALOGUE: dict[str, ModelCard] = {
    card.name: card
    for card in (
        _ovis2("1B", 1.13, "AIMv2-large", "Qwen2.5-0.5B"),
        _ovis2("2B", 2.22, "AIMv2-large", "Qwen2.5-1.5B"),
        _ovis2("4B", 4.31, "AIMv2-huge", "Qwen2.5-3B"),
        _ovis2("8B", 8.94, "AIMv2-huge", "Qwen2.5-7B"),
        _ovis2("16B", 16.2, "AIMv2-huge", "Qwen2.5-14B"),
        _ovis2("34B", 34.9, "AIMv2-1B", "Qwen2.5-32B"),
        _ovis16("ovis1.6-gemma2-9b", "AIDC-AI/Ovis1.6-Gemma2-9B", 10.2, "Gemma2-9B-it"),
        _ovis16("ovis1.6-llama3.2-3b", "AIDC-AI/Ovis1.6-Llama3.2-3B", 4.14, "Llama-3.2-3B-Instruct"),
        ModelCard(
            name="ovis2-reader",
            hub_id=None,
            params_b=0.0034,
            context_tokens=4096,
            tile_side=336,
            tokens_per_tile=576,
            max_partition=1,
            default_max_new_tokens=320,
            description="Bundled tiny Ovis2 that reads monospaced print; for the quick start and for tests",
            prompts="ovis2-reader",
        ),
    )
}
