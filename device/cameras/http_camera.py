"""Network cameras over HTTP: one picture per request, or a stream of pictures (MJPEG)."""

import asyncio
import re
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from bus.mqtt.presence import now_ms
from device.cameras.base import SIGNATURE_BYTES, CameraError, Frame, looks_like_picture
from device.cameras.driver import DriverCamera
from device.cameras.hardware import Shot, opencv_camera
from device.cameras.http_client import HttpClient
from device.cameras.multipart import MultipartSplitter, boundary_of
from device.cameras.newest import NewestPicture
from schemas.image import ImageError, read_header
from schemas.text import escaped, without_secrets

if TYPE_CHECKING:
    import aiohttp

MAX_PICTURE_BYTES = 32 * 1024 * 1024
_CAPTURE_TIMEOUT_S = 20.0
_IDLE_S = 10.0
_PAUSE_S = 1.0
_KIND_CHARS = 80
_NEXT_JPEG = b"\xff\xd9\xff\xd8\xff"  # behind the end of another one
_VIDEO = re.compile(r"video/|.*mpegurl")


class HttpCamera:
    """A camera with an HTTP address; the Content-Type tells what the address delivers.

    A picture is requested again for each photo. A stream of pictures (`multipart/x-mixed-replace`) is read
    on, so that each photo is the newest, until no photo was asked for during ten seconds; the next capture
    then opens it again. Pictures are passed on as they are. Video is read by OpenCV.

    Args:
        url: With user and password if necessary, for Basic or Digest authentication.
        shot: Quality of photos from video.
    """

    live = True

    def __init__(self, url: str, shot: Shot = Shot()) -> None:  # noqa: B008  # frozen
        self._url = url
        self._shot = shot
        self._client = HttpClient(url)
        self._source = without_secrets(url)
        self._stack = AsyncExitStack()
        self._video: DriverCamera | None = None
        self._reader: asyncio.Task[None] | None = None
        self._newest = NewestPicture(self._source)
        self._capturing = False
        self._asked_at = 0.0

    async def __aenter__(self) -> Self:
        """Create the HTTP client; the first capture connects."""
        await self._client.open()
        self._stack.push_async_callback(self._client.close)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the stream and the client."""
        await self._stop_reading()
        await self._stack.aclose()

    async def capture(self) -> Frame:
        """Take a photo. Safe to cancel."""
        if self._video is None and (frame := await self._capture_picture()) is not None:
            return frame
        if self._video is None:
            self._video = await self._stack.enter_async_context(opencv_camera(self._url, self._shot))
        return await self._video.capture()

    async def _capture_picture(self) -> Frame | None:
        """Take a picture; return None if the address delivers video."""
        self._capturing = True
        try:
            async with asyncio.timeout(_CAPTURE_TIMEOUT_S):
                return await self._capture()
        except TimeoutError:
            await self._stop_reading()  # the next capture opens the stream again
            raise CameraError(
                f"{self._client.subject} sent no complete picture in {_CAPTURE_TIMEOUT_S:g} s"
            ) from None
        finally:
            self._capturing = False
            self._asked_at = asyncio.get_running_loop().time()

    async def _capture(self) -> Frame | None:
        if self._reader is not None and not self._reader.done():
            try:
                return await self._newest.take()
            except CameraError:
                pass  # the stream has ended since the last photo: open it again at once
        return await self._open()

    async def _open(self) -> Frame | None:
        response = await self._client.get()
        kind = response.content_type.lower()
        if kind.startswith("multipart/"):
            await self._stop_reading()
            self._newest = NewestPicture(self._source)
            self._reader = asyncio.create_task(self._read(response), name="camera.http")
            return await self._newest.take()
        async with response:
            return None if _VIDEO.match(kind) else await self._picture(response)

    async def _picture(self, response: "aiohttp.ClientResponse") -> Frame:
        """Return the picture that is the body of a response."""
        body, taken_at_ms, kind, next_at = bytearray(), now_ms(), response.content_type, -1
        while chunk := await self._more(response, body):
            start = max(0, len(body) - len(_NEXT_JPEG))
            body += chunk
            if next_at < 0 and response.content_length is None:
                # Some cameras push JPEGs behind each other: the first is the photo.
                next_at = body.find(_NEXT_JPEG, start)
                if next_at >= 0 and _is_whole(first := bytes(body[: next_at + 2])):
                    return Frame(first, self._source, taken_at_ms=taken_at_ms)
            if len(body) >= SIGNATURE_BYTES and not looks_like_picture(bytes(body[:SIGNATURE_BYTES])):
                break
            if len(body) > MAX_PICTURE_BYTES:
                raise CameraError(
                    f"{self._client.subject} sent a picture of more than {MAX_PICTURE_BYTES} bytes"
                )
        if not looks_like_picture(bytes(body[:SIGNATURE_BYTES])):
            raise CameraError(
                f"{self._client.subject} answered with {escaped(kind, _KIND_CHARS)}, which is not a picture",
                hint="use the address of its picture or its stream, and not that of its page",
            )
        return Frame(bytes(body), self._source, taken_at_ms=taken_at_ms)

    async def _more(self, response: "aiohttp.ClientResponse", body: bytearray) -> bytes:
        """Return the next bytes of a picture; empty at its end.

        Some cameras announce no length, or a wrong one, and keep the connection open: where nothing follows,
        a picture that is whole has ended.
        """
        while True:
            try:
                async with asyncio.timeout(_PAUSE_S):
                    return await self._client.chunk(response)
            except TimeoutError:
                if _is_whole(body):
                    return b""
            except CameraError:
                if _is_whole(body):
                    return b""
                raise

    async def _read(self, response: "aiohttp.ClientResponse") -> None:
        """Read a stream until it ends or no photo was asked for during `_IDLE_S`."""
        newest, now = self._newest, asyncio.get_running_loop().time
        boundary = boundary_of(response.headers.get("Content-Type", ""))
        splitter = MultipartSplitter(boundary, MAX_PICTURE_BYTES)
        failure = CameraError(f"{self._client.subject} ended its stream")
        try:
            async with response:
                while chunk := await self._client.chunk(response):
                    if not self._capturing and now() - self._asked_at >= _IDLE_S:
                        break
                    for part in splitter.feed(chunk, now()):
                        if looks_like_picture(part.body):
                            newest.put(part.body, began_at=part.began_at, arrived_at=now())
        except CameraError as error:
            failure = error
        finally:
            for part in splitter.end():
                if _is_whole(part.body):
                    newest.put(part.body, began_at=part.began_at, arrived_at=now())
            newest.fail(failure)

    async def _stop_reading(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
            self._reader = None


def _is_whole(body: bytes | bytearray) -> bool:
    """Return True for a JPEG or PNG with its end."""
    try:
        return read_header(bytes(body)).damaged is None
    except ImageError:
        return False
