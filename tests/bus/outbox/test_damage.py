"""Damage at rest: a row is set aside, a file is moved aside, and the service starts (guarantees G1, G4)."""

import asyncio
import sqlite3
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from bus.config import OutboxLimits
from bus.metrics import Counters
from bus.outbox.damage import DamageLog
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database, StorageError
from schemas.codec import encode, mark_historical, stored_id
from schemas.messages import Photo
from schemas.topics import PHOTO
from tests.conftest import eventually, jpeg

FAST = OutboxLimits(resend_first_s=0.02, resend_cap_s=0.05, window=1000)
IDS = [f"{number:032x}" for number in range(1, 8)]
TOPIC = PHOTO.name(node="n", device="d")
FILLER = b"\xab"
TABLES = {"outbox": Outbox.MIGRATIONS}


class Reader:
    """Records which photos were published and what was reported as degraded."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.seen: set[str] = set()
        self.reasons: list[str] = []

    async def publish(self, topic: str, payload: bytes) -> None:
        self.seen.add(stored_id(PHOTO, topic, payload))

    async def connected(self, after: int) -> int:
        if after:
            await asyncio.Event().wait()
        return 1

    async def report(self, _: str, reason: str) -> None:
        self.reasons.append(reason)


@asynccontextmanager
async def outbox_at(path: Path, reader: Reader):
    damage = DamageLog(reader.counters)
    async with Database(path, TABLES, damage=damage) as database, asyncio.TaskGroup() as tasks:
        outbox = Outbox(
            database,
            FAST,
            reader.counters,
            name="photo",
            transform_late=mark_historical,
            read_id=lambda topic, payload: stored_id(PHOTO, topic, payload),
        )
        await outbox.load()
        running = [
            tasks.create_task(outbox.run(reader.publish, reader.connected)),
            tasks.create_task(damage.run(reader.report)),
        ]
        yield outbox
        for task in running:
            task.cancel()


@pytest.fixture
async def stored(tmp_path):
    """The file of an outbox with seven photos, the fourth of 40 kB."""
    path = tmp_path / "state" / "d.db"
    async with Database(path, TABLES) as database:
        outbox = Outbox(database, FAST, Counters(), name="photo")
        for number, photo_id in enumerate(IDS):
            image = jpeg(number) + FILLER * (40_000 if number == 3 else 0)
            photo = Photo(photo_id=photo_id, node="n", device="d", image=image, taken_at_ms=1)
            await outbox.put(photo_id, TOPIC, encode(PHOTO, photo))
    return path


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


LATE = "UPDATE outbox SET created_ms = created_ms - 1000000"
FLIPS = {
    "payload-first-byte": "payload = X'00' || substr(payload, 2)",
    "payload-last-byte": "payload = substr(payload, 1, length(payload) - 1) || X'01'",
    "payload-empty": "payload = X''",
    "payload-text": "payload = 'text'",
    "id": f"id = '{'f' * 32}'",
    "id-not-utf8": "id = CAST(X'FF00' AS TEXT)",
    "id-blob": "id = X'00'",
    "topic": "topic = 'gleaner/v1/photo/n/e'",
    "topic-of-nothing": "topic = CAST(X'80' AS TEXT)",
    "time": "created_ms = 'soon'",
    "checksum": "checksum = X'00'",
    "checksum-digit": "checksum = 'f' || substr(checksum, 2)",
}


@pytest.mark.parametrize("late", [False, True], ids=["live", "late"])
@pytest.mark.parametrize("flip", FLIPS)
async def test_g1_a_damaged_row_costs_itself(stored, flip, late):
    """G1: a row with a damaged column is set aside, counted and reported; the others are answered."""
    execute(stored, f"UPDATE outbox SET {FLIPS[flip]} WHERE id = '{IDS[0]}'", *([LATE] if late else []))
    if flip == "time" and late:
        execute(stored, f"UPDATE outbox SET created_ms = 'soon' WHERE id = '{IDS[0]}'")
    reader = Reader()
    async with outbox_at(stored, reader) as outbox:
        await eventually(lambda: reader.seen >= set(IDS[1:]) and reader.counters["photo.damaged"] == 1)
        assert reader.seen == set(IDS[1:])
        for photo_id in IDS[1:]:
            assert await outbox.mark_answered(photo_id)
        await outbox.wait_until_empty()
        await eventually(lambda: any("row of outbox was set aside" in reason for reason in reader.reasons))
    with closing(sqlite3.connect(stored)) as connection:
        assert connection.execute("SELECT count(*) FROM damaged_row").fetchone() == (1,)


async def test_g1_a_row_of_an_earlier_version_is_checked_by_its_payload(stored):
    """G1: a row without a checksum is damaged if the id in its payload is not its own, or is unreadable."""
    other = f"(SELECT payload FROM outbox WHERE id = '{IDS[1]}')"
    execute(
        stored,
        "UPDATE outbox SET checksum = NULL",
        f"UPDATE outbox SET payload = {other} WHERE id = '{IDS[0]}'",
        f"UPDATE outbox SET payload = X'FF' || payload WHERE id = '{IDS[2]}'",
    )
    reader = Reader()
    async with outbox_at(stored, reader):
        await eventually(lambda: reader.counters["photo.damaged"] == 2)
        await eventually(lambda: reader.seen == {*IDS} - {IDS[0], IDS[2]})


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def page_of(path: Path, query: str) -> int:
    """Return the offset of a page found by dbstat's columns `name`, `pagetype`, `pageno`."""
    with closing(sqlite3.connect(path)) as connection:
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        return (connection.execute(query).fetchone()[0] - 1) * size


def leaf(path: Path) -> int:
    return page_of(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'outbox'")


def flip_schema(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    at = content.index(old)
    overwrite(path, at, new)


def index_root(path: Path) -> int:
    return page_of(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_outbox_1'")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").touch()


FILES = {
    "no-database": lambda path: path.write_bytes(b"this is not a database" * 500),
    "empty": lambda path: path.write_bytes(b""),
    "one-byte": lambda path: path.write_bytes(b"S"),
    "header-flipped": lambda path: overwrite(path, 3, b"\x00"),
    "header-zeros": lambda path: overwrite(path, 0, bytes(100)),
    "page-size": lambda path: overwrite(path, 16, b"\x00\x03"),
    "schema-zeros": lambda path: overwrite(path, 100, bytes(300)),
    "schema-name": lambda path: flip_schema(path, b"CREATE TABLE outbox", b"CREATE TABLE outbpx"),
    "schema-keyword": lambda path: flip_schema(path, b"CREATE TABLE outbox", b"CREATD TABLE outbox"),
    "schema-column": lambda path: flip_schema(path, b"payload BLOB", b"paxload BLOB"),
    "table-root": lambda path: overwrite(path, leaf(path), b"\xff" * 64),
    "index-root": lambda path: overwrite(path, index_root(path), b"\xff" * 64),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "last-page-torn": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "folder": replace_by_folder,
    "wal-garbage": lambda path: path.with_name("d.db-wal").write_bytes(b"\x37\x7f\x06\x82" + bytes(5000)),
    "wal-folder": lambda path: path.with_name("d.db-wal").mkdir(),
    "journal-folder": lambda path: path.with_name("d.db-journal").mkdir(),
    "version-text": lambda path: execute(path, "UPDATE schema_version SET version = 'x'"),
    "version-lower": lambda path: execute(path, "UPDATE schema_version SET version = 0"),
    "version-part": lambda path: execute(path, "UPDATE schema_version SET part = 'x' || part"),
    "highest-row": lambda path: execute(path, f"UPDATE outbox SET seq = {2**63 - 1} WHERE id = '{IDS[-1]}'"),
    "highest-number": lambda path: execute(path, f"UPDATE sqlite_sequence SET seq = {2**63 - 1}"),
}
HARMLESS = {"wal-garbage", "version-lower", "version-part"}  # all that the scripts make is there
ONE_ROW = {"last-page-torn"}
KEEPS_ALL = {
    "index-root",
    "wal-garbage",
    "wal-folder",
    "journal-folder",
    "version-text",
    "version-lower",
    "version-part",
    "highest-row",
    "highest-number",
}


@pytest.mark.parametrize("damage", FILES)
async def test_g1_a_damaged_file_is_moved_aside_and_the_service_starts(stored, damage):
    """G1: with any damage to the file, the outbox starts and works, and one error names the old file."""
    FILES[damage](stored)
    reader = Reader()
    async with outbox_at(stored, reader) as outbox:
        new = "f" * 32
        photo = Photo(photo_id=new, node="n", device="d", image=jpeg(9), taken_at_ms=1)
        await outbox.put(new, TOPIC, encode(PHOTO, photo))
        await eventually(lambda: new in reader.seen)
        assert await outbox.mark_answered(new)
        if damage in KEEPS_ALL:
            await eventually(lambda: reader.seen >= set(IDS))
        if damage not in HARMLESS:
            await eventually(lambda: reader.reasons != [])
            assert "d.db" in reader.reasons[-1]
            assert damage in ONE_ROW or list(stored.parent.glob("d.db.damaged-1*"))
    async with outbox_at(stored, Reader()):
        assert len(list(stored.parent.glob("*.damaged-*"))) <= 1, "the second start finds nothing damaged"


async def test_g1_rows_on_other_pages_survive_a_damaged_page(tmp_path):
    """G1: when a page of the table is damaged, the rows on all others are copied to the new file and sent."""
    path = tmp_path / "d.db"
    ids = [f"{number:032x}" for number in range(1, 201)]
    async with Database(path, TABLES) as database:
        outbox = Outbox(database, FAST, Counters(), name="photo")
        for photo_id in ids:
            photo = Photo(photo_id=photo_id, node="n", device="d", image=jpeg()[:1000], taken_at_ms=1)
            await outbox.put(photo_id, TOPIC, encode(PHOTO, photo))
    for victim in (ids[60], ids[120]):
        at = path.read_bytes().index(victim.encode())
        overwrite(path, at - at % 4096, b"\xff" * 16)
    reader = Reader()
    async with outbox_at(path, reader):
        await eventually(lambda: len(reader.seen) > 180 and {ids[0], ids[90], ids[-1]} <= reader.seen)


@pytest.mark.parametrize("number", [b"\x00\x00\x00\x00", b"\x00\xff\xff\xff", b"\x7f\xff\xff\xff"])
async def test_g1_a_damaged_chain_of_a_payload_costs_that_payload(stored, number):
    """G1: a payload whose pages cannot be read is left behind; the others are sent and answered."""
    content = stored.read_bytes()
    # The second overflow page of the long payload starts with the number of the next one.
    victim = content.index(FILLER * 4084)
    page = victim - victim % 4096
    overwrite(stored, page, number)
    reader = Reader()
    async with outbox_at(stored, reader) as outbox:
        await eventually(lambda: reader.seen == {*IDS} - {IDS[3]})
        for photo_id in sorted(reader.seen):
            assert await outbox.mark_answered(photo_id)
        await outbox.wait_until_empty()
        assert reader.counters["database.damaged"] == 1


async def test_work_that_meets_a_damaged_page_is_done_on_the_repaired_file(stored):
    """A write that finds the damage is done again after the repair, and its caller sees no error."""
    overwrite(stored, index_root(stored), b"\xff" * 64)
    counters = Counters()
    async with Database(stored, TABLES, damage=DamageLog(counters)) as database:
        outbox = Outbox(database, FAST, counters, name="photo")
        await outbox.load()
        assert await outbox.put("new", TOPIC, b"bytes")
        assert len(outbox) == 8
        await eventually(lambda: counters["database.damaged"] == 1)


async def test_without_somebody_to_tell_a_damaged_file_is_an_error(stored):
    """A Database without a DamageLog changes nothing about a damaged file."""
    stored.write_bytes(b"this is not a database" * 500)
    with pytest.raises(StorageError, match="not a database"):
        async with Database(stored, TABLES):
            pass
    assert list(stored.parent.iterdir()) == [stored]


async def test_a_repair_that_was_killed_is_finished(stored):
    """A finished replacement whose renames were cut off by a power loss is put in place by the next start."""
    stored.with_name("d.db.rebuilt").write_bytes(stored.read_bytes())
    stored.write_bytes(b"damaged" * 1000)
    reader = Reader()
    async with outbox_at(stored, reader):
        await eventually(lambda: reader.seen == set(IDS))


async def test_g3_few_damaged_files_are_kept(stored):
    """G3: the newest three damaged files are kept."""
    for _ in range(5):
        stored.write_bytes(b"damaged" * 1000)
        async with outbox_at(stored, Reader()):
            pass
    assert sorted(path.name for path in stored.parent.glob("*damaged*")) == [
        f"d.db.damaged-{number}" for number in (3, 4, 5)
    ]


async def test_g5_other_users_cannot_read_the_file(tmp_path):
    """G5: folder, database and log are private, also those that an earlier version left readable."""
    path = tmp_path / "state" / "d.db"
    for _ in range(2):
        async with Database(path, TABLES) as database:
            outbox = Outbox(database, FAST, Counters(), name="photo")
            await outbox.load()
            await outbox.put(f"{len(outbox)}", TOPIC, b"photo")
            assert path.parent.stat().st_mode & 0o077 == 0
            assert not [part for part in path.parent.iterdir() if part.stat().st_mode & 0o077]
        path.chmod(0o644)
