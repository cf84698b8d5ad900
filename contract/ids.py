"""Ids that sort by the time of their making."""

from __future__ import annotations

import os
import time


def sortable_id(prefix: str) -> str:
    """``prefix``, 12 hex digits of milliseconds by this machine's clock, then 80 random bits as 20 hex digits."""
    return f"{prefix}{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"
