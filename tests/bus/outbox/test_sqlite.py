import asyncio
import sqlite3
import threading

import pytest

from bus.metrics import Counters
from bus.outbox.damage import DamageLog
from bus.outbox.sqlite import Database, StorageError
from schemas.errors import PermanentError
from tests.conftest import DEADLINE_S

TABLES = {"things": ("CREATE TABLE thing (name TEXT UNIQUE)",)}


def insert(name: str):
    return lambda connection: connection.execute("INSERT INTO thing (name) VALUES (?)", (name,)) and None


def names(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT name FROM thing ORDER BY name")]


async def test_completed_work_is_there_after_reopening(tmp_path):
    """Work is on the disk when `run` returns."""
    async with Database(tmp_path / "a.db", TABLES) as database:
        await asyncio.gather(*(database.run(insert(str(number))) for number in range(500)))
    async with Database(tmp_path / "a.db", TABLES) as database:
        assert len(await database.run(names)) == 500


async def test_only_commits_of_work_that_need_not_outlive_a_loss_of_power_are_not_synced(tmp_path):
    """Each time that it is alone in its transaction; together with other work it is synced, too."""
    normal, full = 1, 2
    began = threading.Event()

    def level(connection: sqlite3.Connection) -> int:
        began.wait(DEADLINE_S)
        return connection.execute("PRAGMA synchronous").fetchone()[0]

    async with Database(tmp_path / "a.db", TABLES) as database:
        # The first keeps the thread busy until the others wait behind it.
        jobs = [asyncio.create_task(database.run(level, synced=False)) for _ in range(3)]
        jobs.append(asyncio.create_task(database.run(level)))
        await asyncio.sleep(0)
        began.set()
        assert await asyncio.gather(*jobs) in ([normal, full, full, full], [full] * 4)
        for _ in range(2):
            assert await database.run(level, synced=False) == normal
            assert await database.run(level) == full
        await database.run(insert("a"), synced=False)
    async with Database(tmp_path / "a.db", TABLES) as database:
        assert await database.run(names) == ["a"]


async def test_failed_work_rolls_back_only_itself(tmp_path):
    """If one of several jobs in a transaction fails, the others are committed."""

    def half(connection: sqlite3.Connection) -> None:
        insert("half")(connection)
        raise LookupError("on purpose")

    async with Database(tmp_path / "a.db", TABLES) as database:
        outcomes = await asyncio.gather(
            database.run(insert("a")), database.run(half), database.run(insert("b")), return_exceptions=True
        )
        assert isinstance(outcomes[1], LookupError)
        assert await database.run(names) == ["a", "b"]


async def test_an_sqlite_error_is_a_storage_error(tmp_path):
    """An error of SQLite raises StorageError for its caller, and later work still runs."""
    async with Database(tmp_path / "a.db", TABLES) as database:
        await database.run(insert("a"))
        with pytest.raises(StorageError):
            await database.run(insert("a"))
        assert await database.run(names) == ["a"]


async def test_a_file_that_is_not_a_database_is_a_storage_error(tmp_path):
    """Opening a file that is not a database raises StorageError with its path."""
    (tmp_path / "a.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(StorageError, match=r"a\.db"):
        async with Database(tmp_path / "a.db", TABLES):
            pass


async def test_missing_migrations_are_run(tmp_path):
    """A file of an earlier version is migrated and keeps its rows."""
    async with Database(tmp_path / "a.db", TABLES) as database:
        await database.run(insert("kept"))
    later = {"things": (*TABLES["things"], "ALTER TABLE thing ADD COLUMN size INTEGER DEFAULT 7")}
    async with Database(tmp_path / "a.db", later) as database:
        assert await database.run(lambda c: c.execute("SELECT * FROM thing").fetchall()) == [("kept", 7)]


@pytest.mark.parametrize("noted", [None, 1], ids=["as we note it", "as earlier versions noted their own"])
async def test_an_older_version_between_two_newer_ones_loses_nothing(tmp_path, noted):
    """After an upgrade, a downgrade and another upgrade no row is lost, and nothing is set aside."""
    later = {
        "things": (
            *TABLES["things"],
            "ALTER TABLE thing ADD COLUMN size INTEGER DEFAULT 7",
            "CREATE TABLE more (name TEXT)",
            "CREATE INDEX by_name ON more (name)",
        )
    }
    for migrations, name in ((later, "first"), (TABLES, "older"), (later, "again")):
        async with Database(tmp_path / "a.db", migrations) as database:
            work = "INSERT INTO thing (name) VALUES (?)"
            await database.run(lambda c, work=work, name=name: c.execute(work, (name,)) and None)
            if noted is not None and migrations is TABLES:
                await database.run(
                    lambda c: c.execute("UPDATE schema_version SET version = ?", (noted,)) and None
                )
    async with Database(tmp_path / "a.db", later) as database:
        assert sorted(await database.run(names)) == ["again", "first", "older"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]


async def test_a_full_disk_is_a_storage_error(tmp_path):
    """On a full disk work is rolled back and raises StorageError with what to do; later work succeeds."""
    async with Database(tmp_path / "a.db", TABLES) as database:
        await database.run(insert("before"))
        pages = await database.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
        await database.run(lambda c: c.execute(f"PRAGMA max_page_count = {pages}") and None)
        with pytest.raises(StorageError, match=r"full; free space on that disk$"):
            await database.run(insert("x" * 100_000))
        await database.run(lambda c: c.execute("PRAGMA max_page_count = 100000") and None)
        await database.run(insert("after"))
        assert await database.run(names) == ["after", "before"]


async def test_a_database_that_cannot_be_opened_says_what_to_do(tmp_path):
    """The file is named, with the remedy."""
    (tmp_path / "a.db").mkdir()
    with pytest.raises(StorageError, match="unable to open database file; make that folder writable"):
        async with Database(tmp_path / "a.db", TABLES):
            pass


@pytest.mark.parametrize("place", ["file", "file/inside"])
async def test_a_state_folder_that_is_a_file_is_final(tmp_path, place):
    """Trying again cannot help: a service ends with 1 and not with 75, and says which option is wrong."""
    (tmp_path / "file").write_text("")
    with pytest.raises(PermanentError, match="cannot be a folder; name another folder"):
        async with Database(tmp_path / place / "a.db", TABLES):
            pass


@pytest.mark.parametrize("lowers", [False, True], ids=["this-version", "an-earlier-one"])
async def test_a_later_version_can_come_back(tmp_path, lowers):
    """G7: a file that an earlier version has used in between opens as it is, and is not taken for damaged.

    Earlier versions also note that fewer scripts have run than have.
    """
    later = {"things": (*TABLES["things"], "ALTER TABLE thing ADD COLUMN size INTEGER DEFAULT 7")}
    async with Database(tmp_path / "a.db", later) as database:
        await database.run(insert("kept"))
    async with Database(tmp_path / "a.db", TABLES) as database:
        await database.run(insert("added"))
        if lowers:
            await database.run(lambda c: c.execute("UPDATE schema_version SET version = 1") and None)
    counters = Counters()
    async with Database(tmp_path / "a.db", later, damage=DamageLog(counters)) as database:
        assert await database.run(names) == ["added", "kept"]
    assert counters.snapshot() == {}
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]


async def test_an_opening_that_is_cancelled_leaves_no_thread(tmp_path):
    """A thread that was left would keep the file locked, and the process from ending."""

    async def use() -> None:
        async with Database(tmp_path / "a.db", TABLES):
            pass

    opening = asyncio.create_task(use())
    await asyncio.sleep(0)  # it waits for its thread
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not [thread for thread in threading.enumerate() if thread.name == "database a.db"]
    await use()
