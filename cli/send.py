"""Publish photos, wait for their results and print them; takes files and folders."""

import asyncio
import errno
import secrets
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bus import log
from bus.backoff import backoff
from bus.files.regular_file import read_regular
from bus.mqtt import session
from bus.mqtt.errors import BrokerConnectionError, MessageTooLargeError
from bus.mqtt.presence import now_ms
from bus.mqtt.subscription import Subscription
from cli import connect, options, run_service
from cli.device import result_text
from cli.output import print_error, print_json, print_line
from schemas.codec import MAX_PAYLOAD_BYTES, encode
from schemas.errors import CodecError, PermanentError
from schemas.messages import Photo, Result
from schemas.topics import PHOTO, RESULT

_SUFFIXES = {".jpg", ".jpeg", ".png"}
_WINDOW = 16
"""Photos that wait for their result at the same time."""

_RESEND_S = 5.0


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a photo, or a folder of photos")
    parser.add_argument("--node", type=options.node, help="edge node (of the configuration, or edge-1)")
    parser.add_argument(
        "--name", type=options.device, default="me", help="device name to send as (default: me)"
    )
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=options.positive(float),
        default=30.0,
        help="seconds to wait for each result (default: 30)",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON lines")
    options.add_broker(parser)


def run(arguments: Namespace) -> int:
    """Send all photos; return 0 if every one was classified."""
    log.configure("error")
    return run_service.run(_Sender(arguments).run(list(_files(arguments.paths))))


def _files(paths: list[Path]) -> Iterator[Path]:
    """Yield the files, and the images below the folders.

    Raises:
        PermanentError: A path does not exist, or a folder has no image.
    """
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES)
            if not found:
                raise PermanentError(f"no JPEG or PNG files in {path}")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise PermanentError(f"there is no file or folder {path}")


def read_photo(path: Path, node: str, device: str) -> tuple[str, bytes]:
    """Read a file; return its new photo id and the encoded Photo.

    Raises:
        PermanentError: It cannot be read, is empty, or is too large for the broker.
    """
    try:
        image = read_regular(path, MAX_PAYLOAD_BYTES)
    except OSError as error:
        if error.errno == errno.EFBIG:
            expected = f"at most {MAX_PAYLOAD_BYTES} bytes"
            raise PermanentError(f"size of {path}", expected=expected, got=path.stat().st_size) from None
        raise PermanentError(f"cannot read {path}: {error.strerror}") from None
    if not image:
        raise PermanentError(f"cannot send {path}: the file is empty")
    photo = Photo(photo_id=secrets.token_hex(16), node=node, device=device, image=image, taken_at_ms=now_ms())
    payload = encode(PHOTO, photo)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise PermanentError(
            f"size of {path}", expected=f"at most {MAX_PAYLOAD_BYTES} bytes", got=len(payload)
        )
    return photo.photo_id, payload


class _Sender:
    """Send photos with a bounded number in flight, and resend those without a result."""

    def __init__(self, arguments: Namespace) -> None:
        self._arguments = arguments
        self._node = arguments.node or options.own_node(arguments)
        self._device = arguments.name
        self._timeout_s, self._json = arguments.timeout, arguments.json
        self._bus = connect.bus(arguments, "send")
        self._results: Subscription[Result] = self._bus.subscribe(
            RESULT, node=self._node, device=self._device
        )
        self._pending: dict[str, asyncio.Future[Result]] = {}
        self._deferred: dict[str, str] = {}  # why a photo has no final result yet
        self._counts: Counter[str] = Counter()
        self._classified = 0
        self._window = asyncio.Semaphore(_WINDOW)

    async def run(self, files: list[Path]) -> int:
        started = time.monotonic()
        connect_s = min(self._timeout_s, session.CONNECT_S)  # a wrong password gets no better by waiting
        async with (
            connect.connected(self._arguments, self._bus, connect_s),
            asyncio.TaskGroup() as tasks,
        ):
            receiver = tasks.create_task(self._receive(), name="send.receive")
            async with asyncio.TaskGroup() as sendings:
                for file in files:
                    # Acquired here and not in the task: a folder of a million photos makes no million tasks.
                    await self._window.acquire()
                    sendings.create_task(self._send(file))
            receiver.cancel()
        if len(files) > 1 and not self._json:
            counted = ", ".join(f"{count} {what}" for what, count in self._counts.most_common())
            print_line(f"{len(files)} photos in {time.monotonic() - started:.1f} s: {counted}")
        return 0 if self._classified == len(files) else 1

    async def _send(self, file: Path) -> None:
        photo_id = ""
        try:
            photo_id, payload = await asyncio.to_thread(read_photo, file, self._node, self._device)
            result = await self._request(photo_id, payload)
        except MessageTooLargeError as error:
            self._counts["too large"] += 1
            print_error(f"{file}: {error}")
        except PermanentError as error:
            self._counts["unreadable"] += 1
            print_error(f"gleaner send: {error}")
        except TimeoutError:
            self._counts["no result"] += 1
            waits = self._deferred.get(photo_id)
            why = "; try 'gleaner doctor'" if waits is None else f": deferred: {waits}"
            print_error(f"{file}: no result after {self._timeout_s:g} s{why}")
        else:
            self._counts[result_text(result)] += 1
            self._classified += result.status == "ok"
            self._print(file, result)
        finally:
            self._deferred.pop(photo_id, None)
            self._window.release()

    async def _request(self, photo_id: str, payload: bytes) -> Result:
        """Publish a photo until its final result arrives.

        Raises:
            TimeoutError: None arrived in time.
        """
        received: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._pending[photo_id] = received
        topic = PHOTO.name(node=self._node, device=self._device)
        try:
            # Resent as a device does it: a PUBACK only means that the broker has the photo.
            async with asyncio.timeout(self._timeout_s):
                for delay_s in backoff(_RESEND_S, _RESEND_S):
                    await self._bus.connected()
                    try:
                        await self._bus.publish_bytes(topic, payload)
                    except BrokerConnectionError:
                        continue  # the next round waits for the connection
                    done, _ = await asyncio.wait((received,), timeout=_RESEND_S + delay_s)
                    if done:
                        return received.result()
        finally:
            del self._pending[photo_id]
        raise AssertionError("backoff() ended, and it yields without end")

    async def _receive(self) -> None:
        async for delivery in self._results:
            delivery.ack()
            try:
                result = delivery.message()
            except CodecError:
                continue
            # Another sender may use the same device name, and a deferred result is not the final one.
            pending = self._pending.get(result.photo_id)
            if pending is None or pending.done():
                continue
            if result.status == "deferred":
                self._deferred[result.photo_id] = result.reason or "no reason given"
            else:
                pending.set_result(result)

    def _print(self, file: Path, result: Result) -> None:
        if self._json:
            fields = msgspec.to_builtins(result) | {"source": str(file)}
            print_json(fields)
            return
        confidence = "" if result.confidence is None else f" {result.confidence:.1%}"
        model = f"{result.model} {result.model_version}" if result.model else ""
        why = f" ({result.reason})" if result.code is not None and result.reason else ""
        print_line(f"{file}: {result_text(result)}{why}{confidence}  {model} {result.edge_ms or 0:.0f} ms")
