"""Read files that have an end."""

import errno
import os
import stat
from pathlib import Path


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Return the bytes of a regular file. Blocking.

    FIFOs, devices and sockets are refused at once, because they could block or have no end.

    Args:
        path: Links are followed.
        most_bytes: A larger file is refused.

    Raises:
        OSError: It cannot be read, is not a regular file, or is larger; `strerror` has the reason.
    """
    # O_NONBLOCK: opening a FIFO waits for a writer otherwise. It changes nothing for regular files.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        # By its stated size first, without reading; but it may grow meanwhile.
        content = b"" if status.st_size > most_bytes else file.read(most_bytes + 1)
    if max(len(content), status.st_size) > most_bytes:
        raise OSError(errno.EFBIG, f"more than {most_bytes} bytes", str(path))
    return content
