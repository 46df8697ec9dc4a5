"""The smallest kernel: before its first Numba does once in a process what takes longer than to load all others."""

from numba import njit


@njit(cache=True, nogil=True)
def nothing() -> None:
    pass
