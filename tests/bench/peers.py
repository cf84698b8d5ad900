"""Where the programs that we compare ourselves with live: environments of their own, made by ``make peers``."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Environments; ignored by git.
PEERS = ROOT / ".peers"

#: The benchmark's model and clips, made on first use.
CACHE = PEERS / "cache"


def peer_python(name: str) -> Path:
    """Interpreter of a peer's environment; ends the program if it was not made."""
    python = PEERS / name / "bin" / "python"
    if not python.exists():
        sys.exit(f"there is no {name} to compare with: run 'make peers' first")
    return python
