"""Publish photos, wait for the answers, print them. Takes files and folders."""

import asyncio
import secrets
import sys
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bus import log
from bus.backoff import backoff
from bus.mqtt.connection import BrokerConnectionError
from bus.mqtt.presence import now_ms
from bus.mqtt.subscription import Subscription
from cli import connect, options, run_service
from cli.device import verdict
from schemas.codec import MAX_PAYLOAD_BYTES, encode
from schemas.errors import CodecError, PermanentError
from schemas.messages import Photo, Result
from schemas.topics import PHOTO, RESULT

_SUFFIXES = {".jpg", ".jpeg", ".png"}
_WINDOW = 16
_RESEND_S = 5.0


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="photos, or folders of them")
    parser.add_argument("--node", type=options.name, default="edge-1", help="edge node to ask (edge-1)")
    parser.add_argument("--name", type=options.name, default="me", help="device to be (me)")
    parser.add_argument(
        "--timeout", metavar="S", type=options.positive(float), default=30.0, help="for each photo (30)"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON lines")
    options.add_broker(parser)


def run(arguments: Namespace) -> int:
    """Send everything and return 0 if every photo was classified."""
    log.configure("error")
    code = run_service.run(_Sender(arguments).run(list(_files(arguments.paths))))
    return 1 if code is None else code


def _files(paths: list[Path]) -> Iterator[Path]:
    """Yield each file; of folders the images below them.

    Raises:
        PermanentError: A path does not exist, or a folder has no image.
    """
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES)
            if not found:
                raise PermanentError(str(path), expected="JPEG or PNG files in the folder", got="none")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise PermanentError(str(path), expected="a file or folder", got="nothing there")


def read_photo(path: Path, node: str, device: str) -> tuple[str, bytes]:
    """Return a file as an encoded Photo, behind its photo id.

    Raises:
        PermanentError: It cannot be read, is empty, or is too large for the broker.
    """
    try:
        image = path.read_bytes()
    except OSError as error:
        raise PermanentError(str(path), expected="a readable file", got=error.strerror) from None
    if not image:
        raise PermanentError(str(path), expected="a photo", got="an empty file")
    photo = Photo(photo_id=secrets.token_hex(16), node=node, device=device, image=image, taken_at_ms=now_ms())
    payload = encode(PHOTO, photo)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise PermanentError(str(path), expected=f"at most {MAX_PAYLOAD_BYTES} bytes", got=len(payload))
    return photo.photo_id, payload


class _Sender:
    """Sends with a window of unanswered photos, again if an answer stays away."""

    def __init__(self, arguments: Namespace) -> None:
        self._arguments = arguments
        self._node, self._device = arguments.node, arguments.name
        self._timeout_s, self._json = arguments.timeout, arguments.json
        self._bus = connect.bus(arguments, "send")
        self._results: Subscription[Result] = self._bus.subscribe(
            RESULT, node=self._node, device=self._device
        )
        self._answers: dict[str, asyncio.Future[Result]] = {}
        self._counts: Counter[str] = Counter()
        self._classified = 0
        self._window = asyncio.Semaphore(_WINDOW)

    async def run(self, files: list[Path]) -> int:
        began = time.monotonic()
        async with (
            connect.connected(self._arguments, self._bus, self._timeout_s),
            asyncio.TaskGroup() as tasks,
        ):
            listening = tasks.create_task(self._listen(), name="send.listen")
            async with asyncio.TaskGroup() as sendings:
                for file in files:
                    await self._window.acquire()
                    sendings.create_task(self._send(file))
            listening.cancel()
        if len(files) > 1 and not self._json:
            said = ", ".join(f"{count} {what}" for what, count in self._counts.most_common())
            print(f"{len(files)} photos in {time.monotonic() - began:.1f} s: {said}")
        return 0 if self._classified == len(files) else 1

    async def _send(self, file: Path) -> None:
        try:
            photo_id, payload = await asyncio.to_thread(read_photo, file, self._node, self._device)
            result = await self._ask(photo_id, payload)
        except PermanentError as error:
            self._counts["unreadable"] += 1
            print(f"gleaner send: {error}", file=sys.stderr)
        except TimeoutError:
            self._counts["no answer"] += 1
            print(f"{file}: no answer within {self._timeout_s:g} s (try `gleaner doctor`)", file=sys.stderr)
        else:
            self._counts[verdict(result)] += 1
            self._classified += result.status == "ok"
            self._print(file, result)
        finally:
            self._window.release()

    async def _ask(self, photo_id: str, payload: bytes) -> Result:
        """Publish until the final answer comes, at most for the time-out."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._answers[photo_id] = answer
        topic = PHOTO.name(node=self._node, device=self._device)
        try:
            async with asyncio.timeout(self._timeout_s):
                for delay_s in backoff(_RESEND_S, _RESEND_S):
                    await self._bus.connected()
                    try:
                        await self._bus.publish_bytes(topic, payload)
                    except BrokerConnectionError:
                        continue
                    done, _ = await asyncio.wait((answer,), timeout=_RESEND_S + delay_s)
                    if done:
                        return answer.result()
        finally:
            del self._answers[photo_id]
        raise AssertionError("backoff yields without end")

    async def _listen(self) -> None:
        async for delivery in self._results:
            delivery.ack()
            try:
                result = delivery.message()
            except CodecError:
                continue
            answer = self._answers.get(result.photo_id)
            if answer is not None and not answer.done() and result.status != "deferred":
                answer.set_result(result)

    def _print(self, file: Path, result: Result) -> None:
        if self._json:
            fields = msgspec.to_builtins(result) | {"source": str(file)}
            print(msgspec.json.encode(fields).decode(), flush=True)
            return
        sure = "" if result.confidence is None else f" {result.confidence:.1%}"
        model = f"{result.model} {result.model_version}" if result.model else ""
        print(f"{file}: {verdict(result)}{sure}  {model} {result.edge_ms or 0:.0f} ms", flush=True)
