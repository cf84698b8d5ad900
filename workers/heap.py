"""How many heaps the C library's allocator gives to threads."""

from __future__ import annotations

import ctypes
import sys

#: Option of glibc's ``mallopt(3)``.
_M_ARENA_MAX = -8


def share_one_heap() -> bool:
    """Have all threads of the process allocate from one heap, for good; call it before threads start.

    By default glibc gives threads heaps of their own, each of which keeps what was once freed in it. A model worker
    has a thread per part and one computing thread at a time: some 25 MB more, for nothing.

    Returns:
        Whether the C library knows this option; others are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_ARENA_MAX, 1))
