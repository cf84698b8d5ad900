"""How the C library's allocator treats the memory that a step frees: the next one wants it back at once."""

from __future__ import annotations

import ctypes
import sys

#: Options of glibc's ``mallopt(3)``.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

#: Blocks up to this size, in bytes, are kept. The heap of a thread can't hold larger ones.
KEPT_BLOCK_BYTES = 64 * 2**20
#: Free memory at the end of a heap, in bytes, above which it goes back to the system.
KEPT_FREE_BYTES = 256 * 2**20


def keep_freed_memory() -> bool:
    """Has freed memory kept for the next allocation, in the whole process and for good.

    By default glibc returns large blocks at once: every tile's scores of the visual words are then new pages that the
    system clears first, 0.4 million page faults in 64 requests (figures in ``docs/performance.md``).

    Returns:
        Whether the C library knows these options; others are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, KEPT_BLOCK_BYTES) and mallopt(_M_TRIM_THRESHOLD, KEPT_FREE_BYTES))
