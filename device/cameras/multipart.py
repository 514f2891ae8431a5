"""Split a stream of `multipart/x-mixed-replace`, as MJPEG cameras send it, into its parts. No I/O.

Own code, because cameras do not follow RFC 2046: the boundary is announced with or without its two hyphens,
Content-Length is missing, and lines end in a plain line feed. General parsers refuse these streams.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from device.cameras.base import CameraError

_END_OF_HEADERS = re.compile(rb"\r?\n\r?\n")
_CONTENT_LENGTH = re.compile(rb"(?im)^content-length[ \t]*:[ \t]*([0-9]{1,12})[ \t]*\r?$")
_MAX_HEADER_BYTES = 16 * 1024


class Part(NamedTuple):
    """One part of the stream.

    Args:
        body: Its bytes.
        began_at: When its headers had arrived, by the clock of `feed`.
    """

    body: bytes
    began_at: float


class MultipartSplitter:
    """Collect chunks until a part is complete.

    Args:
        boundary: The parameter of Content-Type, with or without quotes and hyphens.
        max_bytes: Largest part.
    """

    def __init__(self, boundary: str, max_bytes: int) -> None:
        # As a camera may announce `--frame` and send `--frame`, hyphens at the start mean nothing.
        self._delimiter = b"--" + boundary.strip('" ').lstrip("-").encode()
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._searched = 0
        self._skipped = 0
        self._began_at: float | None = None  # None before the end of a part's headers
        self._length: int | None = None

    def feed(self, chunk: bytes, at: float) -> Iterator[Part]:
        """Add a chunk, and yield the parts that it completes.

        Args:
            chunk: The next bytes of the stream.
            at: When they arrived, in seconds of any clock.

        Raises:
            CameraError: A part or its headers are too large.
        """
        self._buffer += chunk
        while True:
            if self._began_at is None:
                if not self._read_headers(at):
                    return
            elif (body := self._read_body()) is None:
                return
            else:
                yield Part(body, self._began_at)
                self._began_at = None

    def _read_headers(self, at: float) -> bool:
        """Skip to the end of the next part's headers; return False if they are incomplete."""
        start = self._buffer.find(self._delimiter)
        if start < 0:
            self._skip(len(self._buffer) - len(self._delimiter))  # the rest may be the start of a delimiter
            return False
        self._skip(start)
        if (end := _END_OF_HEADERS.search(self._buffer)) is None:
            if len(self._buffer) > _MAX_HEADER_BYTES:
                raise CameraError(f"a part of the stream has more than {_MAX_HEADER_BYTES} bytes of headers")
            return False
        length = _CONTENT_LENGTH.search(self._buffer, 0, end.end())
        self._length = None if length is None else int(length[1])
        if self._length is None and self._delimiter == b"--":
            raise CameraError("the stream announces neither a boundary nor the length of its parts")
        self._check(self._length or 0)
        del self._buffer[: end.end()]
        self._began_at, self._searched, self._skipped = at, 0, 0
        return True

    def _skip(self, count: int) -> None:
        """Drop bytes between two parts, such as those beyond a Content-Length that is too small."""
        self._skipped += max(0, count)
        self._check(self._skipped)
        del self._buffer[: max(0, count)]

    def _read_body(self) -> bytes | None:
        """Return the body of the part; None if it is incomplete."""
        if self._length is not None:
            end = self._length if len(self._buffer) >= self._length else -1
        else:
            end = self._buffer.find(self._delimiter, self._searched)
            # The next search begins where a delimiter may have been cut by the end of the chunk.
            self._searched = max(0, len(self._buffer) - len(self._delimiter))
            self._check(len(self._buffer))
        if end < 0:
            return None
        body = bytes(self._buffer[:end])
        del self._buffer[:end]
        return body if self._length is not None else body.rstrip(b"\r\n-")

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise CameraError(
                "part of the camera's stream", expected=f"at most {self._max_bytes} bytes", got=size
            )
