"""How the next token is chosen, per request."""

from __future__ import annotations

from dataclasses import dataclass

from ovis_engine.errors import FieldOutOfRangeError

#: Largest temperature; far beyond it every distribution is flat.
MAX_TEMPERATURE = 10.0
#: Largest repetition penalty, the same for its inverse.
MAX_PENALTY = 10.0
#: Seeds are keys of a 64-bit counter-based generator; one bit is left out so that they fit signed fields.
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Sampling:
    """Greedy by default, whatever a checkpoint's generation_config.json says.

    The same seed gives the same text, alone or batched, as far as the logits agree (exactly in float32, save for near
    ties at the edge of top_k or top_p).

    Attributes:
        temperature: 0 for the most likely token, else what logits are divided by, up to 10.
        top_p: Keep the fewest most likely tokens whose probabilities reach this, above 0 to 1; 1 keeps all.
        top_k: Keep this many most likely tokens; 0 keeps all.
        repetition_penalty: Divides positive logits of tokens that the output already has and multiplies negative ones,
            0.1 to 10; 1 is none. The prompt does not count, as in the reference. Acts on greedy rows too.
        seed: 0 to 2^63 - 1; None draws one.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether no chance is involved."""
        return self.temperature == 0.0

    def validate(self) -> None:
        """Checks the ranges.

        Raises:
            FieldOutOfRangeError: If a field is outside its range.
        """
        check_range("temperature", self.temperature, 0.0, MAX_TEMPERATURE)
        # "not (a <= b)" also holds for NaN.
        if not 0.0 < self.top_p <= 1.0:
            raise FieldOutOfRangeError("top_p", "above 0 and at most 1", self.top_p)
        check_range("top_k", self.top_k, 0)
        check_range("repetition_penalty", self.repetition_penalty, 1 / MAX_PENALTY, MAX_PENALTY)
        if self.seed is not None:
            check_range("seed", self.seed, 0, MAX_SEED)


def check_range(field: str, value: float, least: float, most: float | None = None) -> None:
    """Refuses a value below least or above most; NaN is refused too.

    Raises:
        FieldOutOfRangeError: Names the field, the limits and the value.
    """
    if most is None and not value >= least:
        raise FieldOutOfRangeError(field, f"at least {least}", value)
    if most is not None and not least <= value <= most:
        raise FieldOutOfRangeError(field, f"{least} to {most}", value)
