"""Memory for tensors that come and go: kept by the process instead of given back every time."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt(3)."""
KEEP_BYTES = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Make the C library's allocator reuse large blocks.

    By default glibc maps every block above a threshold anew and unmaps it when freed, so each large
    tensor is paid for page by page, every time: a fifth of a training step. From here on, blocks
    come from the heap, and up to 2 GiB of what is free at its end are kept. For the whole process,
    until its end; results do not change.

    Returns:
        False if the C library has no such settings; nothing has changed then.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    done = [mallopt(M_TRIM_THRESHOLD, KEEP_BYTES), mallopt(M_MMAP_MAX, 0)]
    return all(done)
