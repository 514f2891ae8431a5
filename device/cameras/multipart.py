"""Split a stream of `multipart/x-mixed-replace`, as MJPEG cameras send it, into its parts. No I/O.

Own code, because cameras do not follow RFC 2046: the boundary is announced with or without its two hyphens,
not at all, or another one than the stream has; Content-Length is missing, and lines end in a plain line feed.
General parsers refuse these streams.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from device.cameras.base import CameraError
from schemas.image.signatures import JPEG_SIGNATURE

_END_OF_HEADERS = re.compile(rb"\r?\n\r?\n")
_BOUNDARY = re.compile(r'(?i);[ \t]*boundary[ \t]*=[ \t]*("[^"]*"|[^;]*)')
_CONTENT_LENGTH = re.compile(rb"(?im)^content-length[ \t]*:[ \t]*([0-9]{1,12})[ \t]*\r?$")
_MAX_HEADER_BYTES = 16 * 1024
_MAX_LINE_BYTES = 512
_JPEG_END, _TAIL_BYTES = b"\xff\xd9", 64
_MAX_BOUNDARY_BYTES = 256


class Part(NamedTuple):
    """One part of the stream.

    Args:
        body: Its bytes.
        began_at: When its headers had arrived, by the clock of `feed`.
    """

    body: bytes
    began_at: float


def boundary_of(content_type: str) -> str:
    """Return the boundary that a Content-Type announces; empty if it announces none."""
    found = _BOUNDARY.search(content_type)
    return "" if found is None else found[1].strip("\"' \t")


class MultipartSplitter:
    """Collect chunks until a part is complete.

    Parts begin with the boundary that was announced, or with the first line that begins with two hyphens and
    is followed by a header, whichever the stream has.

    Args:
        boundary: The parameter of Content-Type, with or without quotes and hyphens.
        max_bytes: Largest part.
    """

    def __init__(self, boundary: str, max_bytes: int) -> None:
        # As a camera may announce `--frame` and send `--frame`, hyphens at the start mean nothing. HTTP's
        # headers are any bytes: those that are not UTF-8 are surrogates here.
        name = boundary.strip("\"' ").lstrip("-").encode("utf-8", "surrogateescape")
        self._delimiter = b"--" + name
        # Bounded: else a line of blanks takes time with the square of its length.
        lines = rb"--[^\r\n]{1,%d}?" % _MAX_BOUNDARY_BYTES + (b"|" + re.escape(name) if name else b"")
        self._other_delimiter = re.compile(rb"(?:\A|\n)(" + lines + rb")[ \t]*\r?\n[!#-9;-~]+[ \t]*:")
        self._is_settled = False
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

    def end(self) -> Iterator[Part]:
        """Yield the last part, if only the end of the stream marks its end."""
        if self._began_at is not None and self._length is None:
            yield Part(bytes(self._buffer).rstrip(b"\r\n-"), self._began_at)

    def _read_headers(self, at: float) -> bool:
        """Skip to the end of the next part's headers; return False if they are incomplete."""
        start = self._find_delimiter()
        if start < 0:
            # The rest may be the start of a delimiter.
            self._skip(len(self._buffer) - max(len(self._delimiter), _MAX_LINE_BYTES))
            return False
        self._skip(start)
        if (end := _END_OF_HEADERS.search(self._buffer)) is None:
            if len(self._buffer) > _MAX_HEADER_BYTES:
                raise CameraError(f"a part of the stream has more than {_MAX_HEADER_BYTES} bytes of headers")
            return False
        length = _CONTENT_LENGTH.search(self._buffer, 0, end.end())
        self._length = (int(length[1]) or None) if length else None  # no picture is empty
        if self._length is None and self._delimiter == b"--":
            raise CameraError("the stream announces neither a boundary nor the length of its parts")
        self._check(self._length or 0)
        self._is_settled = True
        del self._buffer[: end.end()]
        self._began_at, self._searched, self._skipped = at, 0, 0
        return True

    def _find_delimiter(self) -> int:
        """Return where the next part begins, -1 if it does not yet; at the first, learn how parts begin."""
        start = self._buffer.find(self._delimiter)
        is_found = start >= 0 and self._delimiter != b"--"
        if is_found or self._is_settled or self._skipped > _MAX_HEADER_BYTES:
            return start
        if (other := self._other_delimiter.search(self._buffer)) is None:
            return start
        self._delimiter = other[1]
        return other.start(1)

    def _skip(self, count: int) -> None:
        """Drop bytes between two parts, such as those beyond a Content-Length that is too small."""
        self._skipped += max(0, count)
        self._check(self._skipped)
        del self._buffer[: max(0, count)]

    def _read_body(self) -> bytes | None:
        """Return the body of the part; None if it is incomplete."""
        if self._length is not None and self._is_cut(self._length):
            self._length = None
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

    def _is_cut(self, length: int) -> bool:
        """Return True if the length is too small for a JPEG: the part then ends where the next one begins."""
        is_known = len(self._buffer) >= length and self._delimiter != b"--"
        is_jpeg = self._buffer.startswith(JPEG_SIGNATURE)
        return is_known and is_jpeg and self._buffer.find(_JPEG_END, max(0, length - _TAIL_BYTES), length) < 0

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise CameraError(
                "part of the camera's stream", expected=f"at most {self._max_bytes} bytes", got=size
            )
