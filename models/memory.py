"""How this process gives memory back to the system. Knows nothing of what it is for."""

import ctypes

# glibc's names for them (malloc.h), and the most that it takes for the first
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD, LARGEST_INT = 32 << 20, 2**31 - 1


def keep_freed_memory() -> None:
    """Buffers up to 32 MiB are kept for the next that asks, once they are freed.

    Otherwise glibc returns them at each free, and the system hands them out again page by page, each cleared: with a
    network's activations on a CPU that is a third of a training step. Where malloc is not glibc's, nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, LARGEST_INT)
