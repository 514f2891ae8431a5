"""SQLite for asyncio: one thread per file, and concurrent writes share a commit.

With a write-ahead log and `synchronous=FULL`, work is on the disk when `run` returns. Under load one commit,
which costs one sync of the disk, contains up to `_BATCH` jobs; that makes a durable outbox fast.
"""

import asyncio
import contextlib
import queue
import shutil
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from bus.files.atomic_file import make_private
from bus.outbox import repair
from bus.outbox.damage import MIGRATIONS as DAMAGED_ROWS
from bus.outbox.damage import DamageLog, RecordingConnection
from schemas.errors import PermanentError, TransientError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
Migrations = Mapping[str, Sequence[str]]

_BATCH = 256
_PENDING = 4096
_IN_USE = "another gleaner uses this folder: stop it, or choose another one with --state-dir"
_FULL = ("is full", "No space left")  # words of SQLite and of the system
_NOT_WRITABLE = ("readonly", "Read-only", "Permission", "unable to open")
_HIGHEST_NUMBER = 2**62  # more rows than any device stores
_HAS_RUN = ("already exists", "duplicate column name")  # SQLite's words for a script that ran before
_OWN_TABLES: Migrations = {"damaged": DAMAGED_ROWS}


class StorageError(TransientError):
    """SQLite failed: the disk is full, read-only or broken. The work was rolled back."""


@dataclass(slots=True)
class _Job:
    work: Work[Any]
    future: "asyncio.Future[Any]"
    synced: bool
    result: Any = None
    error: Exception | None = None


class Database:
    """A SQLite database for asyncio.

    Bounded: at most `_PENDING` jobs are queued; further callers of `run` wait.

    Args:
        path: The file; it and its folder are created.
        migrations: SQL scripts for each part of the schema, in order. A script that has run must not be
            changed: append another one.
        damage: Receives everything that is found damaged. A damaged file is then moved aside and replaced by
            a new one with the rows that can still be read, when it is opened and at any time later; without
            it a damaged file is a StorageError.
    """

    def __init__(self, path: Path, migrations: Migrations, *, damage: DamageLog | None = None) -> None:
        self._path = path
        self._migrations = {**migrations, **_OWN_TABLES}
        self._damage = damage
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._slots = asyncio.Semaphore(_PENDING)
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> Self:
        """Open the file and run the migrations that are missing.

        Raises:
            StorageError: The file cannot be opened, is locked by another process, or is damaged and there is
                no `damage` to report that.
            PermanentError: The folder is a file, or inside one.
        """
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._main, args=(opened,), name=f"database {self._path.name}")
        self._thread.start()
        try:
            await opened
        except BaseException as error:  # also a cancellation: nobody else would end the thread
            await self.__aexit__(type(error), error, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the queued jobs, then close the file."""
        self._jobs.put(None)
        if self._thread is not None:
            # Shielded: a cancelled exit must not leave the thread writing to a file that is opened again.
            await asyncio.shield(asyncio.to_thread(self._thread.join))

    def free_bytes(self) -> int:
        """Return the free bytes on the file's disk.

        Raises:
            StorageError: The folder cannot be found any more.
        """
        try:
            return shutil.disk_usage(self._path.parent).free
        except OSError as error:
            raise StorageError(f"cannot use {self._path.parent}: {error.strerror}") from None

    async def run(self, work: Work[T], *, synced: bool = True) -> T:
        """Run work in a transaction, in the database's thread; return its result once it is on the disk.

        Other work may share the transaction; if this one raises, only its own changes are rolled back.
        Cancelling the caller does not undo queued work.

        Args:
            work: Called with the connection.
            synced: Whether it survives a loss of power. Work that survives only the end of this process needs
                no sync of the disk, for which others would wait.

        Raises:
            StorageError: SQLite failed.
        """
        async with self._slots:
            job = _Job(work, self._loop.create_future(), synced)
            self._jobs.put(job)
            result: T = await job.future
            return result

    async def answered(self) -> None:
        """Wait until the database's thread has run a transaction: proof that it does not hang.

        Raises:
            StorageError: SQLite failed.
        """
        await self.run(lambda connection: connection.execute("SELECT 1").fetchone())

    def _main(self, opened: "asyncio.Future[None]") -> None:
        try:
            connection = self._open()
        except (sqlite3.Error, OSError, ValueError, TypeError, OverflowError) as error:
            failure: Exception = StorageError(
                f"cannot open database {self._path}: {error}", hint=_remedy(error)
            )
            if isinstance(error, FileExistsError | NotADirectoryError):  # no later try can succeed
                failure = PermanentError(
                    f"cannot open database {self._path}: {error.filename} cannot be a folder",
                    hint="name another folder for the state, with --state-dir or `state_dir`",
                )
            self._loop.call_soon_threadsafe(_opened, opened, failure)
            return
        self._loop.call_soon_threadsafe(_opened, opened, None)
        usable: RecordingConnection | None = connection
        try:
            while jobs := self._next():
                usable = self._run_jobs(usable, jobs)
                # Only after the commit: a caller may rely on the disk as soon as its future is done.
                self._loop.call_soon_threadsafe(_complete, jobs)
        finally:
            if usable is not None:
                usable.close()

    def _open(self) -> RecordingConnection:
        """Open the file; a damaged one is repaired first if `damage` is set."""
        # Photos and answers are private: other users of the machine may not read them.
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._damage is None:
            return self._connect()
        if (moved_to := repair.clear_the_way(self._path)) is not None:
            self._report(f"{self._path} is empty or no file: it was moved to {moved_to}")
        try:
            return self._connect()
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            if not repair.is_damage_when_opening(error):
                raise
            self._repair(error)
            return self._connect()

    def _connect(self) -> RecordingConnection:
        # isolation_level None: sqlite3 must not begin transactions on its own.
        connection = sqlite3.connect(
            self._path, isolation_level=None, timeout=5.0, factory=RecordingConnection
        )
        try:
            # A damaged text must not end a query: its row fails its own checks instead.
            connection.text_factory = _tolerant_text
            connection.execute("PRAGMA journal_mode = WAL")
            for part in repair.parts(self._path):  # before anything is written
                make_private(part)
            connection.execute("PRAGMA synchronous = FULL")
            # A free page of the file would keep a forgotten photo for as long as nothing needs the page.
            connection.execute("PRAGMA secure_delete = ON")
            # A second process with the same outbox would send everything twice: let it fail to open the file.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN IMMEDIATE")
            migrate(connection, self._migrations)
            check_schema(connection, self._migrations)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _repair(self, error: Exception) -> None:
        """Replace the file, which no connection has open; raises sqlite3.Error or OSError."""
        result = repair.repair(self._path, lambda connection: migrate(connection, self._migrations))
        rest = "; the rest could not be read" if result.lost else ""
        self._report(
            f"database {self._path} was damaged ({error}): it was moved to {result.moved_to}, and "
            f"{result.rows} of its rows were saved{rest}"
        )

    def _report(self, sentence: str) -> None:
        if self._damage is not None:
            self._loop.call_soon_threadsafe(self._damage.add, sentence)

    def _run_jobs(
        self, connection: RecordingConnection | None, jobs: list[_Job]
    ) -> RecordingConnection | None:
        """Commit jobs; if the file turns out to be damaged, repair it and commit them to the new one.

        Returns:
            The connection for the next jobs, None if the repair failed: they try again.
        """
        try:
            connection = connection or self._open()
            failure = self._commit(connection, jobs)
            if failure is not None and self._damage is not None and repair.is_damage(failure):
                connection.close()
                connection = None
                self._repair(failure)
                connection = self._connect()
                for job in jobs:  # they were rolled back with the damaged file
                    job.result = job.error = None
                self._commit(connection, jobs)
        except (sqlite3.Error, OSError) as error:
            self._fail(
                jobs, StorageError(f"cannot repair database {self._path}: {error}", hint=_remedy(error))
            )
        return connection

    def _next(self) -> list[_Job]:
        """Wait for a job and return it with those queued behind it; an empty list means close."""
        jobs: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == _BATCH or self._jobs.empty():
                return jobs
            job = self._jobs.get()
        if jobs:
            self._jobs.put(None)  # close after these jobs
        return jobs

    def _commit(self, connection: RecordingConnection, jobs: list[_Job]) -> Exception | None:
        """Run jobs in one transaction; returns an error that shows that the file is damaged."""
        connection.damaged.clear()
        try:
            _sync(connection, synced=any(job.synced for job in jobs))
            connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                _attempt(connection, job)
                if self._damage is not None and repair.is_damage(job.error):
                    connection.execute("ROLLBACK")
                    return job.error
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            failed = next((job.error for job in jobs if repair.is_damage(job.error)), error)
            self._fail(
                jobs, StorageError(f"cannot commit to database {self._path}: {error}", hint=_remedy(error))
            )
            return failed
        for sentence in connection.damaged:
            self._report(f"{self._path}: {sentence}")
        return None

    def _fail(self, jobs: list[_Job], failure: StorageError) -> None:
        for job in jobs:
            job.error = job.error or failure


def _sync(connection: RecordingConnection, *, synced: bool) -> None:
    """Let commits be synced, or leave that to the next one that is; outside of a transaction."""
    if connection.synced != synced:
        # As a script, which is not cached: this statement does its work when it is compiled.
        connection.executescript(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
        connection.synced = synced


def migrate(connection: sqlite3.Connection, migrations: Migrations) -> None:
    """Run the scripts that have not run on this file yet, inside the caller's transaction.

    Scripts only add tables, columns and indices: an older version works with the file of a newer one. Some of
    these note their own, lower number in it, so that a script may have run already.
    """
    connection.execute("CREATE TABLE IF NOT EXISTS schema_version (part TEXT PRIMARY KEY, version INTEGER)")
    done = dict(connection.execute("SELECT part, version FROM schema_version"))
    # Parts have separate versions: device and edge use different tables in files of the same form.
    for part, scripts in migrations.items():
        for script in scripts[done.get(part, 0) :]:
            try:
                connection.execute(script)
            except sqlite3.OperationalError as error:
                if not any(text in str(error) for text in _HAS_RUN):
                    raise
        newest = max(len(scripts), done.get(part, 0))
        connection.execute("INSERT OR REPLACE INTO schema_version VALUES (?, ?)", (part, newest))


def check_schema(connection: sqlite3.Connection, migrations: Migrations) -> None:
    """Compare the tables with those that the migrations make, and look at the highest numbers of rows.

    Raises:
        DamagedError: A table or column is missing, for which a flipped bit in a name is enough; or a row has
            a number behind which SQLite finds no further ones: it would call the disk full, forever.
    """
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as wanted:
        migrate(wanted, migrations)
        for name, sql in wanted.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'table'"
        ).fetchall():
            if missing := _columns(wanted, name) - _columns(connection, name):
                raise repair.DamagedError(f"table {name} has no {', '.join(sorted(missing))}")
            if "AUTOINCREMENT" in str(sql):
                _check_numbers(connection, name)


def _check_numbers(connection: sqlite3.Connection, table: str) -> None:
    """Raise DamagedError if a row has so high a number that no further ones are left."""
    queries = (
        f"SELECT max(rowid) FROM {table}",  # noqa: S608  # our own name
        f"SELECT max(seq) FROM sqlite_sequence WHERE name = '{table}'",  # noqa: S608
    )
    for query in queries:
        (highest,) = connection.execute(query).fetchone()
        if isinstance(highest, int | float) and highest > _HIGHEST_NUMBER:
            raise repair.DamagedError(f"table {table} has a row with the number {highest}")


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")}


def _tolerant_text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _attempt(connection: sqlite3.Connection, job: _Job) -> None:
    connection.execute("SAVEPOINT job")  # so that a failing job does not roll back the others
    try:
        job.result = job.work(connection)
    except Exception as error:  # noqa: BLE001  # raised to the caller of run()
        job.error = error
        if connection.in_transaction:  # SQLite ends it itself for some errors, such as a full disk
            connection.execute("ROLLBACK TO job")
    connection.execute("RELEASE job")


def _opened(opened: "asyncio.Future[None]", failure: Exception | None) -> None:
    if opened.done():  # the caller was cancelled
        return
    if failure is None:
        opened.set_result(None)
    else:
        opened.set_exception(failure)


def _remedy(error: Exception) -> str | None:
    said = str(error)
    if "locked" in said:
        return _IN_USE
    if any(words in said for words in _FULL):
        return "free space on that disk"
    if any(words in said for words in _NOT_WRITABLE):
        return "make that folder writable for this service"
    return None


def _complete(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future.done():  # the caller was cancelled
            continue
        if job.error is None:
            job.future.set_result(job.result)
        elif isinstance(job.error, sqlite3.Error):
            error = job.error
            job.future.set_exception(StorageError(f"an SQL statement failed: {error}", hint=_remedy(error)))
        else:
            job.future.set_exception(job.error)
