"""Record what a device accepts, outside the product: which photo, which picture, and whether it was synced.

The product is unchanged: its camera and its outbox are wrapped before the command starts. Lines are appended
with one write each, so they survive a SIGKILL of the process. A photo counts as accepted once `put` has
returned; one whose process dies before the line is written is not counted, and may be answered anyway.
"""

import ctypes
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

ENVIRONMENT = "GLEANER_ACCEPTED"
"""Names the file that the lines are appended to."""


@dataclass(frozen=True)
class Acceptance:
    """What all devices accepted.

    Args:
        pictures: Digest of the picture by photo id.
        frames: Frames that the cameras delivered.
        refused: Photos that an outbox refused with an error.
        unsynced: Photos that were accepted although no write-ahead log was synced meanwhile.
        starts: How often the devices were started.
    """

    pictures: dict[str, str] = field(default_factory=dict)
    frames: int = 0
    refused: int = 0
    unsynced: int = 0
    starts: int = 0

    @property
    def vanished(self) -> int:
        """Frames that were neither accepted nor refused; each start of a device may lose one."""
        return max(0, self.frames - len(self.pictures) - self.refused - self.starts)


def digest(image: bytes) -> str:
    """Return the digest by which pictures are compared."""
    return hashlib.sha256(image).hexdigest()


def read(paths: Iterable[Path]) -> Acceptance:
    """Read the lines of all devices; a last line that is cut off is left out."""
    pictures: dict[str, str] = {}
    counts = {"start": 0, "frame": 0, "refused": 0}
    unsynced = 0
    for path in paths:
        for line in path.read_text().split("\n")[:-1]:
            what = json.loads(line)
            if what[0] == "accepted":
                pictures[what[1]] = what[2]
                unsynced += what[3] == 0
            else:
                counts[what[0]] += 1
    return Acceptance(pictures, counts["frame"], counts["refused"], unsynced, counts["start"])


def has_frame(path: Path, pid: int | None) -> bool:
    """Return whether the camera of a device has delivered a frame since its process was started."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    start = json.dumps(["start", pid])
    return start in lines and '["frame"]' in lines[lines.index(start) :]


def record() -> None:
    """Wrap camera and outbox of this process."""
    from bus.outbox.outbox import Outbox  # noqa: PLC0415  # only in a device
    from device.cameras.replay import ReplayCamera  # noqa: PLC0415  # as above
    from schemas.codec import decode  # noqa: PLC0415  # as above
    from schemas.topics import PHOTO  # noqa: PLC0415  # as above

    descriptor = os.open(os.environ[ENVIRONMENT], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    syncs = _sync_counter()
    capture, put = ReplayCamera.capture, Outbox.put

    def note(*what: object) -> None:
        os.write(descriptor, json.dumps(what).encode() + b"\n")

    @wraps(capture)
    async def noted_capture(self: ReplayCamera) -> Any:
        frame = await capture(self)
        note("frame")
        return frame

    @wraps(put)
    async def noted_put(self: Outbox, message_id: str, topic: str, payload: bytes) -> bool:
        before = syncs()
        try:
            accepted = await put(self, message_id, topic, payload)
        except Exception:
            note("refused")
            raise
        photo = decode(PHOTO, payload, PHOTO.match(topic))
        synced = None if before is None else (syncs() or 0) - before
        note("accepted", message_id, digest(photo.image), synced)
        return accepted

    ReplayCamera.capture = noted_capture  # type: ignore[method-assign]
    Outbox.put = noted_put  # type: ignore[method-assign]
    note("start", os.getpid())


def _sync_counter() -> Callable[[], int | None]:
    """Return a function that counts the syncs of write-ahead logs; None where nothing counts them."""
    try:
        count = ctypes.CDLL(None).gleaner_wal_syncs
    except AttributeError:
        return lambda: None
    return lambda: int(count())
