"""Command line of the engine: ``python -m ovis_engine verify DIR``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ovis_engine.families import FAMILIES


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; 0 if it succeeded, 1 if not, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m ovis_engine", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    verify_parser = commands.add_parser("verify", help="compare the engine with parity fixtures")
    verify_parser.add_argument("directory", type=Path, metavar="DIR", help="fixtures, laid out as tests/parity")
    verify_parser.add_argument("--family", choices=sorted(set(FAMILIES.values())), help="default: all")
    options = parser.parse_args(arguments)
    if not options.directory.is_dir():
        parser.error(f"{options.directory} is not a directory")
    from ovis_engine.verify import verify

    return 0 if verify(options.directory, options.family) else 1


if __name__ == "__main__":
    sys.exit(main())
