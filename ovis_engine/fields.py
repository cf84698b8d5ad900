"""Fields of a checkpoint's JSON files: what is missing, of the wrong kind or out of range is named. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ovis_engine.errors import CheckpointError

#: Largest size of anything; products of two still fit 64 bits.
MAX_SIZE = 2**31 - 1
#: Largest magnitude of a number; far inside float32.
MAX_NUMBER = 1e30


class Fields:
    """The fields of one JSON object."""

    def __init__(self, content: dict[str, Any], file: str, path: str = "") -> None:
        """Takes over an object.

        Args:
            content: What the object holds.
            file: The file's name.
            path: The object's place in the file, for errors: empty, or names with a dot behind each.
        """
        self.content, self.file, self._path = content, file, path

    def __contains__(self, name: str) -> bool:
        """Whether a field is there and not null."""
        return self.content.get(name) is not None

    def part(self, name: str) -> Fields:
        """The object in a field. Raises `CheckpointError`, as all below."""
        value = self._present(name)
        if not isinstance(value, dict):
            raise self.fault(name, "an object", value)
        return Fields(value, self.file, f"{self._path}{name}.")

    def word(self, name: str) -> str:
        """The text in a field."""
        value = self._present(name)
        if not isinstance(value, str):
            raise self.fault(name, "text", value)
        return value

    def size(self, name: str, least: int = 1, most: int = MAX_SIZE) -> int:
        """The whole number in a field, from least to most."""
        value = self._present(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.fault(name, f"a whole number from {least} to {most}", value)
        return value

    def positive(self, name: str) -> float:
        """The number in a field, above 0."""
        value = self._present(name)
        if not (_is_number(value) and value > 0):
            raise self.fault(name, "a number above 0", value)
        return float(value)

    def numbers(self, name: str, count: int, *, positive: bool = False) -> tuple[float, ...]:
        """The list of so many numbers in a field, all above 0 if so wanted."""
        values = self._present(name)
        sound = isinstance(values, list) and len(values) == count and all(_is_number(value) for value in values)
        if not sound or (positive and min(values) <= 0):
            raise self.fault(name, f"{count} numbers{' above 0' if positive else ''}", values)
        return tuple(float(value) for value in values)

    def fault(self, name: str, wanted: str, value: object) -> CheckpointError:
        """The error that says what a field must be and what it is."""
        return CheckpointError(f"{self._path}{name} must be {wanted}, not {_shown(value)}", file=self.file)

    def _present(self, name: str) -> Any:
        if name not in self:
            raise CheckpointError(f"has no {self._path}{name}", file=self.file)
        return self.content[name]


def read_json(file: Path) -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Raises:
        CheckpointError: If it cannot be read, or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise CheckpointError(f"cannot be read ({exc.strerror})", file=file.name) from exc
    except (ValueError, RecursionError) as exc:  # RecursionError: nested too deeply
        raise CheckpointError("is not JSON", file=file.name) from exc
    if not isinstance(content, dict):
        raise CheckpointError("is not a JSON object", file=file.name)
    return content


def in_short(error: Exception) -> str:
    """What a library raised over a configuration, on one line of at most 200 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _is_number(value: object) -> bool:
    """Whether a value is a number, neither infinite nor NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -MAX_NUMBER < value < MAX_NUMBER


def _shown(value: object) -> str:
    return f"{value!r:.60}"
