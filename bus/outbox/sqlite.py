"""SQLite for asyncio: one thread per file, and concurrent writes share a commit.

With a write-ahead log and `synchronous=FULL`, work is on the disk when `run` returns. Under load one commit,
which costs one sync of the disk, contains up to `_BATCH` jobs; that makes a durable outbox fast.
"""

import asyncio
import queue
import shutil
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from schemas.errors import TransientError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
Migrations = Mapping[str, Sequence[str]]

_BATCH = 256
_PENDING = 4096


class StorageError(TransientError):
    """SQLite failed: the disk is full, read-only or broken. The work was rolled back."""


@dataclass(slots=True)
class _Job:
    work: Work[Any]
    future: "asyncio.Future[Any]"
    result: Any = None
    error: Exception | None = None


class Database:
    """A SQLite database for asyncio.

    Bounded: at most `_PENDING` jobs are queued; further callers of `run` wait.

    Args:
        path: The file; it and its folder are created.
        migrations: SQL scripts for each part of the schema, in order. A script that has run must not be
            changed: append another one.
    """

    def __init__(self, path: Path, migrations: Migrations) -> None:
        self._path = path
        self._migrations = migrations
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._slots = asyncio.Semaphore(_PENDING)
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> Self:
        """Open the file and run the migrations that are missing.

        Raises:
            StorageError: The file cannot be opened, is not a database, or is locked by another process.
        """
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._main, args=(opened,), name=f"database {self._path.name}")
        self._thread.start()
        await opened
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
        """Return the free bytes on the file's disk."""
        return shutil.disk_usage(self._path.parent).free

    async def run(self, work: Work[T]) -> T:
        """Run work in a transaction, in the database's thread; return its result once it is on the disk.

        Other work may share the transaction; if this one raises, only its own changes are rolled back.
        Cancelling the caller does not undo queued work.

        Args:
            work: Called with the connection.

        Raises:
            StorageError: SQLite failed.
        """
        async with self._slots:
            job = _Job(work, self._loop.create_future())
            self._jobs.put(job)
            result: T = await job.future
            return result

    def _main(self, opened: "asyncio.Future[None]") -> None:
        try:
            connection = self._open()
        except (sqlite3.Error, OSError) as error:
            failure = StorageError(f"cannot open database {self._path}: {error}")
            self._loop.call_soon_threadsafe(opened.set_exception, failure)
            return
        self._loop.call_soon_threadsafe(opened.set_result, None)
        try:
            while jobs := self._next():
                self._commit(connection, jobs)
                # Only after the commit: a caller may rely on the disk as soon as its future is done.
                self._loop.call_soon_threadsafe(_complete, jobs)
        finally:
            connection.close()

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # isolation_level None: sqlite3 must not begin transactions on its own.
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=5.0)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # A second process with the same outbox would send everything twice: let it fail to open the file.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN IMMEDIATE")
        migrate(connection, self._migrations)
        connection.execute("COMMIT")
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

    def _commit(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                _attempt(connection, job)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            failure = StorageError(f"cannot commit to database {self._path}: {error}")
            for job in jobs:
                job.error = job.error or failure


def migrate(connection: sqlite3.Connection, migrations: Migrations) -> None:
    """Run the scripts that have not run on this file yet, inside the caller's transaction."""
    connection.execute("CREATE TABLE IF NOT EXISTS schema_version (part TEXT PRIMARY KEY, version INTEGER)")
    done = dict(connection.execute("SELECT part, version FROM schema_version"))
    # Parts have separate versions: device and edge use different tables in files of the same form.
    for part, scripts in migrations.items():
        for script in scripts[done.get(part, 0) :]:
            connection.execute(script)
        connection.execute("INSERT OR REPLACE INTO schema_version VALUES (?, ?)", (part, len(scripts)))


def _attempt(connection: sqlite3.Connection, job: _Job) -> None:
    connection.execute("SAVEPOINT job")  # so that a failing job does not roll back the others
    try:
        job.result = job.work(connection)
    except Exception as error:  # noqa: BLE001  # raised to the caller of run()
        job.error = error
        if connection.in_transaction:  # SQLite ends it itself for some errors, such as a full disk
            connection.execute("ROLLBACK TO job")
    connection.execute("RELEASE job")


def _complete(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future.done():  # the caller was cancelled
            continue
        if job.error is None:
            job.future.set_result(job.result)
        elif isinstance(job.error, sqlite3.Error):
            job.future.set_exception(StorageError(f"an SQL statement failed: {job.error}"))
        else:
            job.future.set_exception(job.error)
