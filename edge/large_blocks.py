"""Let memory for decoded photos go back to the system."""

import ctypes

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's mallopt
_LARGE_BYTES = 4 * 1024 * 1024


def return_when_freed() -> bool:
    """Let the C library map each large block on its own, so that freeing it returns its pages at once.

    glibc raises its limit up to 32 MB as blocks are freed, and then keeps them in a heap per thread: after
    some photos of 16 megapixels a handler held 500 MB that it no longer used.

    Returns:
        False for another C library.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BYTES))
    except (AttributeError, OSError):
        return False
