"""Keeps the measuring processes' allocator from becoming what is measured."""

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_NEVER = 1 << 30


def keep_freed_memory() -> None:
    """Have glibc reuse freed blocks instead of giving them back to the system.

    A body of megabytes passes through blocks of 256 kB; mapping each of them anew costs four times
    what copying it does. Other C libraries do without this. The worker is left as it is deployed.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _NEVER)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
