"""How the next token is chosen, per request."""

from __future__ import annotations

from dataclasses import dataclass

from ovis_engine.errors import FieldOutOfRangeError

#: Largest temperature; far beyond it every distribution is flat.
MAX_TEMPERATURE = 10.0
#: Largest repetition penalty, the same for its inverse.
MAX_PENALTY = 10.0
#: Largest top_k; no vocabulary is as large, and counts of tokens fit 64 bits on every device.
MAX_TOP_K = 2**31 - 1
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
        top_k: Keep this many most likely tokens, at most 2^31 - 1; 0 keeps all.
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
        if not (is_number(self.top_p) and 0.0 < self.top_p <= 1.0):
            raise FieldOutOfRangeError("top_p", "above 0 and at most 1", shown(self.top_p))
        check_whole("top_k", self.top_k, 0, MAX_TOP_K)
        check_range("repetition_penalty", self.repetition_penalty, 1 / MAX_PENALTY, MAX_PENALTY)
        if self.seed is not None:
            check_whole("seed", self.seed, 0, MAX_SEED)


def check_range(field: str, value: float, least: float, most: float) -> None:
    """Refuses what is no number, and a value below least or above most; NaN is refused too.

    Raises:
        FieldOutOfRangeError: Names the field, the limits and the value.
    """
    if not (is_number(value) and least <= value <= most):
        raise FieldOutOfRangeError(field, f"{least} to {most}", shown(value))


def check_whole(field: str, value: int, least: int, most: int | None = None) -> None:
    """Refuses what is no int (40.0 and True are none), and a value below least or above most.

    Raises:
        FieldOutOfRangeError: Names the field, the limits and the value.
    """
    if isinstance(value, int) and not isinstance(value, bool) and least <= value and (most is None or value <= most):
        return
    raise FieldOutOfRangeError(
        field,
        f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}",
        shown(value),
    )


def is_number(value: object) -> bool:
    """Whether a value is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown(value: object) -> float | str:
    """A value as an error may show it: of what is no number, only its type."""
    return value if isinstance(value, int | float) else type(value).__name__
