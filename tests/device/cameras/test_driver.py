import threading

import pytest

from bus.mqtt.presence import now_ms
from device.cameras import driver
from device.cameras.base import CameraError, CameraStuckError
from device.cameras.driver import DriverCamera
from tests.conftest import eventually


class Scripted:
    """A driver whose frames are their own numbers; it can hang and fail."""

    def __init__(self, *, continuous: bool = False, frames: int = 10**9) -> None:
        self.continuous = continuous
        self.frames = frames
        self.grabbed = 0
        self.age_s = 0.0
        self.calls: list[str] = []
        self.hangs_in = ""
        self.fails_in = ""
        self.freed = threading.Event()
        self.closed = threading.Event()
        self.pace = threading.Event()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.hangs_in == name:
            self.freed.wait(60)
        if self.fails_in == name:
            raise RuntimeError("cable")

    def open(self) -> None:
        self._call("open")

    def grab(self) -> float:
        if self.continuous:
            self.pace.wait(0.001)
        self._call("grab")
        self.grabbed += 1
        if self.grabbed > self.frames:
            raise CameraError("camera x delivered no frame")
        return self.age_s

    def encode(self) -> bytes:
        self._call("encode")
        return str(self.grabbed).encode()

    def close(self) -> None:
        self._call("close")
        self.closed.set()


@pytest.fixture
def drivers(monkeypatch):
    """The drivers that a camera creates, in order; each hanging call is freed at the end."""
    monkeypatch.setattr(driver, "CAPTURE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(driver, "OPEN_TIMEOUT_S", 0.1)
    made = [Scripted() for _ in range(12)]
    yield made
    for one in made:
        one.freed.set()


def camera_of(drivers: list[Scripted]) -> DriverCamera:
    return DriverCamera(iter(drivers).__next__, subject="camera x", source="x")


async def test_a_continuous_driver_is_read_all_the_time():
    """A photo is the first frame after the request, however many came before, with its time."""
    one = Scripted(continuous=True)
    async with camera_of([one]) as camera:
        for _ in range(3):
            seen = one.grabbed
            await eventually(lambda seen=seen: one.grabbed > seen + 5)
            before, asked_ms = one.grabbed, now_ms()
            frame = await camera.capture()
            assert int(frame.image) > before
            assert asked_ms - 1 <= frame.taken_at_ms <= now_ms()
    assert one.calls.count("encode") == 3
    assert one.closed.is_set()


async def test_a_frame_that_its_driver_knows_to_be_old_says_so():
    """The time of a photo is that of its frame, also where the frame arrived late."""
    one = Scripted()
    one.age_s = 1000.0
    async with camera_of([one]) as camera:
        asked_ms = now_ms()
        frame = await camera.capture()
    assert asked_ms - 1_000_001 <= frame.taken_at_ms <= now_ms() - 1_000_000


async def test_another_driver_is_read_on_request_only():
    """A driver that queues nothing, such as a video file, delivers its frames one by one."""
    one = Scripted()
    async with camera_of([one]) as camera:
        assert [(await camera.capture()).image for _ in range(3)] == [b"1", b"2", b"3"]
    assert one.calls == ["open", *["grab", "encode"] * 3, "close"]


@pytest.mark.parametrize("call", ["grab", "encode"])
async def test_a_driver_that_hangs_is_abandoned_and_opened_anew(drivers, call):
    """The capture fails after its timeout; the next one opens another driver in another thread."""
    async with camera_of(drivers) as camera:
        assert (await camera.capture()).image == b"1"
        drivers[0].hangs_in = call
        with pytest.raises(CameraError, match=r"camera x: no answer in 0\.1 s"):
            await camera.capture()
        assert (await camera.capture()).image == b"1"
        # A driver that comes back is closed, by the only thread that may do so.
        drivers[0].freed.set()
        await eventually(drivers[0].closed.is_set)


async def test_a_hung_driver_does_not_delay_the_end(drivers):
    """Closing the camera does not wait for a call that hangs, nor does a thread keep the process alive."""
    async with camera_of(drivers) as camera:
        drivers[0].hangs_in = "grab"
        with pytest.raises(CameraError):
            await camera.capture()
    assert not drivers[0].closed.is_set()
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "camera x")


async def test_opening_that_keeps_failing_beside_a_hung_driver_ends_the_camera(drivers):
    """A device that a hung thread still holds cannot be opened: the third failure is final."""
    async with camera_of(drivers) as camera:
        drivers[0].hangs_in = "grab"
        for one in drivers[1:]:
            one.fails_in = "open"
        for _ in range(2):
            with pytest.raises(CameraError):
                await camera.capture()
        with pytest.raises(
            CameraStuckError, match=r"cable; calls that its driver has not ended: 1; this process ends"
        ):
            await camera.capture()


async def test_abandoned_threads_are_bounded(drivers):
    """A driver that hangs after each few frames ends the camera with the fourth thread."""
    async with camera_of(drivers) as camera:
        for number, error in enumerate([CameraError] * 3 + [CameraStuckError]):
            assert (await camera.capture()).image == b"1"
            drivers[number].hangs_in = "grab"
            with pytest.raises(error, match=r"no answer in 0\.1 s"):
                await camera.capture()


async def test_failures_without_a_hung_driver_are_retried_without_end(drivers):
    """A camera that is unplugged for long does not end the process."""
    async with camera_of(drivers) as camera:
        for one in drivers[1:10]:
            one.fails_in = "open"
        drivers[0].fails_in = "grab"
        for _ in range(10):
            with pytest.raises(CameraError, match="camera x failed: cable"):
                await camera.capture()
        assert (await camera.capture()).image == b"1"


async def test_a_stream_that_ended_between_two_photos_is_opened_at_once():
    """No photo is lost at the end of a stream."""
    ended, next_one = Scripted(continuous=True, frames=5), Scripted(continuous=True)
    async with camera_of([ended, next_one]) as camera:
        await eventually(ended.closed.is_set)
        assert int((await camera.capture()).image) > 0


async def test_a_bug_in_a_driver_is_not_hidden(drivers):
    """An error that is not a camera's failure reaches the caller as it is."""
    drivers[0].encode = lambda: None.missing  # type: ignore[attr-defined]
    async with camera_of(drivers) as camera:
        with pytest.raises(AttributeError):
            await camera.capture()
