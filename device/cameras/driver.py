"""Run the blocking driver of a camera in its own thread, and replace a driver that hangs.

A thread that hangs in a driver cannot be interrupted: it is abandoned together with what it opened.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from bus.mqtt.presence import now_ms
from device.cameras.base import CameraError, CameraStuckError, Frame

T = TypeVar("T")

OPEN_TIMEOUT_S = 20.0
CAPTURE_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 1.0
_MAX_FAILURES = 3
"""Failures in a row while an abandoned thread hangs, after which the process has to end."""
_MAX_ABANDONED = 4
"""Abandoned threads that hang at the same time, after which the process has to end."""


class Driver(Protocol):
    """A blocking camera driver. One thread calls all methods, in the order open, grab, encode, …, close.

    OSError, RuntimeError and IndexError are reported as a failure of the camera.
    """

    @property
    def continuous(self) -> bool:
        """Whether frames queue up if nobody reads them, so that they have to be read all the time."""

    def open(self) -> None:
        """Open the camera; raises CameraError."""

    def grab(self) -> float:
        """Wait for the next frame; return its age in seconds, 0 if unknown; raises CameraError."""

    def encode(self) -> bytes:
        """Return the frame that was grabbed last as JPEG; raises CameraError."""

    def close(self) -> None:
        """Close the camera; also called if `open` failed."""


class _Captured(NamedTuple):
    """A JPEG, and when its frame was taken, in seconds of the monotonic clock."""

    image: bytes
    taken_at: float


class DriverThread:
    """One driver in one daemon thread, from `open` to `close`.

    Args:
        driver: Used by this thread alone.
        subject: Name of the camera in errors.
    """

    def __init__(self, driver: Driver, subject: str) -> None:
        self._driver = driver
        self._subject = subject
        self._requests: SimpleQueue[Future[_Captured] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._current: Future[_Captured] | None = None
        self.opened: Future[None] = Future()
        self.ended: Future[None] = Future()
        # A daemon, because a thread that hangs in a driver would keep the process from exiting.
        self._thread = threading.Thread(target=self._run, name=subject, daemon=True)

    def start(self) -> None:
        """Start the thread; `opened` is set when the camera is open."""
        self._thread.start()

    def request(self) -> Future[_Captured] | None:
        """Ask for the next frame; return None if the thread has ended."""
        request: Future[_Captured] = Future()
        with self._lock:
            if self.ended.done():
                return None
            self._requests.put(request)
        return request

    def stop(self) -> None:
        """Ask the thread to close the driver and end; `ended` is set when it has."""
        self._requests.put(None)

    def _run(self) -> None:
        failure: BaseException = CameraError(f"{self._subject} is closed")
        try:
            self._driver.open()
            self.opened.set_result(None)
            self._serve()
        except BaseException as error:  # noqa: BLE001  # raised again where a frame is awaited
            failure = self._mapped(error)
        finally:
            with contextlib.suppress(Exception):  # the first failure is the one to report
                self._driver.close()
            self._end(failure)

    def _serve(self) -> None:
        while True:
            if self._driver.continuous:
                while self._requests.empty():
                    self._driver.grab()
            if (request := self._requests.get()) is None:
                return
            if request.set_running_or_notify_cancel():
                self._current = request
                # In any case: the frame was taken after the request.
                age_s = self._driver.grab()
                taken_at = time.monotonic() - age_s
                self._current.set_result(_Captured(self._driver.encode(), taken_at))
                self._current = None

    def _mapped(self, error: BaseException) -> BaseException:
        # Picamera2 raises IndexError if there is no camera.
        known = isinstance(error, OSError | RuntimeError | IndexError)
        return CameraError(f"{self._subject} failed: {error}") if known else error

    def _end(self, failure: BaseException) -> None:
        with self._lock:
            self.ended.set_result(None)
        # Only now: the caller that sees the failure may ask for another frame at once, and opens a new
        # driver.
        if not self.opened.done():
            self.opened.set_exception(failure)
        if self._current is not None:
            self._current.set_exception(failure)
        while not self._requests.empty():
            request = self._requests.get()
            if request is not None and request.set_running_or_notify_cancel():
                request.set_exception(failure)


class DriverCamera:
    """A camera over a blocking driver; opened again by the first capture after a failure.

    A call that takes longer than its timeout abandons the driver with its thread, and the next capture opens
    a new driver. While abandoned threads hang, the third failure in a row is final, and so is the fourth
    abandoned thread.

    Args:
        driver: Creates a driver; called for each opening.
        subject: Name of the camera in errors.
        source: Name of the camera in results.
    """

    live = True

    def __init__(self, driver: Callable[[], Driver], *, subject: str, source: str) -> None:
        self._make = driver
        self._subject = subject
        self.source = source
        self._thread: DriverThread | None = None
        self._abandoned: list[DriverThread] = []
        self._failures = 0

    async def __aenter__(self) -> Self:
        """Open the camera."""
        self._thread = DriverThread(self._make(), self._subject)
        await self._attempt(self._start(self._thread))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the camera, waiting a second at most."""
        if self._thread is not None:
            self._thread.stop()
            await asyncio.wait([asyncio.wrap_future(self._thread.ended)], timeout=_CLOSE_TIMEOUT_S)

    async def capture(self) -> Frame:
        """Take a photo as JPEG: the first frame after this call."""
        captured = await self._attempt(self._capture())
        age_ms = round((time.monotonic() - captured.taken_at) * 1000)
        return Frame(captured.image, self.source, taken_at_ms=now_ms() - age_ms)

    async def _capture(self) -> _Captured:
        request = None if self._thread is None else self._thread.request()
        if request is None:  # a stream that ended since the last photo is opened again at once
            self._thread = DriverThread(self._make(), self._subject)
            # Before the thread reads: a short video would be over before a later request.
            request = self._thread.request()
            await self._start(self._thread)
        assert request is not None
        return await self._within(CAPTURE_TIMEOUT_S, request)

    async def _start(self, thread: DriverThread) -> None:
        thread.start()
        await self._within(OPEN_TIMEOUT_S, thread.opened)

    async def _within(self, timeout_s: float, answer: Future[T]) -> T:
        """Wait for the thread's answer; abandon the thread if there is none."""
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(answer)
        except TimeoutError:
            assert self._thread is not None
            self._thread.stop()  # if the call returns after all, the thread closes its driver and ends
            self._abandoned.append(self._thread)
            self._thread = None
            raise CameraError(f"{self._subject}: no answer in {timeout_s:g} s") from None

    async def _attempt(self, work: Coroutine[Any, Any, T]) -> T:
        """Do some work; count its failures in a row.

        Raises:
            CameraError: The work failed.
            CameraStuckError: It failed too often.
        """
        try:
            done = await work
        except CameraError as error:
            self._abandoned = [thread for thread in self._abandoned if not thread.ended.done()]
            self._failures = self._failures + 1 if self._abandoned else 0
            if self._failures >= _MAX_FAILURES or len(self._abandoned) >= _MAX_ABANDONED:
                hanging = len(self._abandoned)
                raise CameraStuckError(
                    f"{error}; calls that its driver has not ended: {hanging}",
                    hint="this process ends, so that its supervisor starts a new one",
                ) from None
            raise
        self._failures = 0
        return done
