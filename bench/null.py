"""What the handler itself costs: a model that does nothing, and the broker alone with C clients."""

import asyncio
import contextlib
import time
from pathlib import Path

from bench.contestants import mosquitto_clients
from bench.figures import Figure, Goal
from bench.load import AnswerError
from bench.photos import NODE
from bench.pipeline import LIMIT, OURS, PER_PHOTO, SATURATED, Contest, figures
from bench.setting import Setting
from bus.broker.process import local_broker
from schemas.topics import PHOTO

CLIENTS = "mosquitto's clients"
_PUBLISHERS = 8
_CAPACITY = "photos for a CPU-second of the handler"
_GOAL_PER_S = 800.0
_LOOKING = "every photo decoded"
_LOOKING_REPEATS = 2
_LOOKS_AT_ALL = {
    "harvest.auto": False, "harvest.audit_share": 0.0, "harvest.hard_entropy": 1.0,
}  # fmt: skip
_START_S = 25.0
_CLIENTS_S = 60.0
_CLIENTS_PHOTOS = 3200
"""Fewer than fill the queue that the broker keeps for a client, however far behind that falls."""


def _write(folder: Path, photo: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "photo.jpg").write_bytes(photo)


async def clients_per_s(folder: Path, photo: bytes, count: int) -> float:
    """Return how many photos a second go from C clients through the broker to a C client, at QoS 1.

    Raises:
        AnswerError: They did not arrive.
    """
    programs, environment = await asyncio.to_thread(mosquitto_clients)
    await asyncio.to_thread(_write, folder, photo)
    each = count // _PUBLISHERS
    with local_broker(folder / "broker") as broker:
        place = ("-p", str(broker.port), "-q", "1", "-t", PHOTO.name(node=NODE, device="camera"))
        listen = (str(programs / "mosquitto_sub"), *place, "-c", "-i", "bench")
        subscribing = await asyncio.create_subprocess_exec(*listen, "-E", env=environment)
        await subscribing.wait()
        words = (*listen, "-C", str(each * _PUBLISHERS), "-N")
        heard = await asyncio.create_subprocess_exec(
            *words, env=environment, stdout=asyncio.subprocess.DEVNULL
        )
        began = time.monotonic()
        send = (str(programs / "mosquitto_pub"), *place, "-f", str(folder / "photo.jpg"))
        said = [
            await asyncio.create_subprocess_exec(*send, "--repeat", str(each), env=environment)
            for _ in range(_PUBLISHERS)
        ]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLIENTS_S):
                await heard.wait()
        took_s = time.monotonic() - began
        for process in (heard, *said):
            if process.returncode is None:
                process.kill()
            await process.wait()
    if heard.returncode:
        raise AnswerError(f"mosquitto_sub: expected {count} photos, got exit code {heard.returncode}")
    return each * _PUBLISHERS / took_s


async def measure(setting: Setting) -> list[Figure]:
    """Measure the handler with a model that does nothing."""
    repeats = 1 if setting.quick else 3
    seconds = 2.0 if setting.quick else max(4.0, (setting.seconds / repeats - _START_S) / 7)
    contest = Contest(setting, "null", seconds, repeats, (25, 50))
    for repeat in range(repeats):
        count = 800 if setting.quick else _CLIENTS_PHOTOS
        per_s = await clients_per_s(setting.folder / f"clients-{repeat}", contest.photos[0], count)
        contest.table.add(SATURATED, CLIENTS, per_s)
    await contest.run()
    looking = Contest(
        Setting(setting.folder / "looking", setting.out, setting.seconds, setting.quick),
        "null", seconds, min(repeats, _LOOKING_REPEATS), (), handler=_LOOKS_AT_ALL,
    )  # fmt: skip
    await looking.run()
    for name, measured in ((OURS, contest), (f"{OURS}, {_LOOKING}", looking)):
        for spent_ms in measured.table.values[PER_PHOTO, f"{OURS}, handler"]:
            if spent_ms:  # in a quick run it may be less than the clock's tick
                contest.table.add(_CAPACITY, name, 1000 / spent_ms)
    setting.note(
        "At saturation the caps of the harvest are soon used up, and then the handler decodes nothing; "
        f"`{OURS}, {_LOOKING}` has rules by which each photo is decoded for its view, and none harvested."
    )
    setting.note(
        f"`{LIMIT}` calls a model that does nothing; `{CLIENTS}` move the same photos from {_PUBLISHERS} "
        "publishers to one subscriber, without an answer. All parts and the load share the cores, so what a "
        "handler could do with a core of its own is said by its processor time. A part of the bare loop's "
        "limit is far more than the pipeline takes here: its open loop is a backlog that only grows."
    )
    capacity = contest.table.figures(_CAPACITY, "photos", goals={OURS: Goal(least=_GOAL_PER_S)})
    return capacity + figures(contest, goals=False)
