"""Where the checkpoints that travel inside the package are."""

from __future__ import annotations

from pathlib import Path

#: Checkpoints inside the package, in the original Ovis layout.
MODELS = Path(__file__).parent / "models"


def bundled_model_path(name: str = "ovis2-reader") -> Path:
    """Directory of a bundled checkpoint.

    Raises:
        FileNotFoundError: If no checkpoint of that name is bundled.
    """
    path = MODELS / name
    if path.parent != MODELS or not (path / "config.json").is_file():
        raise FileNotFoundError(f"no model named {name!r} is bundled")
    return path
