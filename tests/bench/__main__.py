"""Benchmarks: ``python -m tests.bench NAME``; not tests, nothing fails on a slow machine."""

from __future__ import annotations

import sys
from importlib import import_module

#: What can be measured; each is a module beside this one with a ``main``.
BENCHES = ("document", "engine", "fleet", "gateway", "media", "queue", "waiting")

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHES:
        sys.exit(f"usage: python -m tests.bench {{{','.join(BENCHES)}}} [options]")
    sys.exit(import_module(f"tests.bench.{sys.argv[1]}").main(sys.argv[2:]))
