"""One SQLite file behind one thread: writes that come together share a commit.

`synchronous=FULL` with a write-ahead log: what `run` returned from is on the disk. Under load a commit (one
sync of the disk) carries up to `_BATCH` pieces of work, which is what makes a durable outbox fast.
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
    """The disk refused: full, read-only or broken. Nothing of that piece of work was kept."""


@dataclass(slots=True)
class _Job:
    work: Work[Any]
    answer: "asyncio.Future[Any]"
    result: Any = None
    error: Exception | None = None


class Database:
    """A SQLite database for asyncio.

    At most `_PENDING` pieces of work wait; further callers of `run` wait their turn.

    Args:
        path: The file; it is created with its folder.
        migrations: For each part of the schema its scripts in order. A script that ran is never changed;
            a change is a further script.
    """

    def __init__(self, path: Path, migrations: Migrations) -> None:
        self._path = path
        self._migrations = migrations
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._places = asyncio.Semaphore(_PENDING)
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> Self:
        """Open the file and bring its schema up to date.

        Raises:
            StorageError: The file cannot be opened, is no database, or is locked by another process.
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
        """Finish the work that was accepted, then close."""
        self._jobs.put(None)
        if self._thread is not None:
            await asyncio.shield(asyncio.to_thread(self._thread.join))

    def free_bytes(self) -> int:
        """Return how much room is left on the disk that the file is on."""
        return shutil.disk_usage(self._path.parent).free

    async def run(self, work: Work[T]) -> T:
        """Run the work in a transaction and return its result once that is on the disk.

        The transaction is shared with others, but a piece of work that raises undoes its own part alone.
        Cancelling the caller does not undo work already accepted.

        Raises:
            StorageError: SQLite refused.
        """
        async with self._places:
            job = _Job(work, self._loop.create_future())
            self._jobs.put(job)
            result: T = await job.answer
            return result

    def _main(self, opened: "asyncio.Future[None]") -> None:
        try:
            connection = self._open()
        except (sqlite3.Error, OSError) as error:
            refusal = StorageError(f"database {self._path}", expected="a writable database", got=error)
            self._loop.call_soon_threadsafe(opened.set_exception, refusal)
            return
        self._loop.call_soon_threadsafe(opened.set_result, None)
        try:
            while jobs := self._next():
                self._commit(connection, jobs)
                self._loop.call_soon_threadsafe(_answer, jobs)
        finally:
            connection.close()

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=5.0)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # One owner: a second process that opens the same file fails at once instead of sending twice.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN IMMEDIATE")
        migrate(connection, self._migrations)
        connection.execute("COMMIT")
        return connection

    def _next(self) -> list[_Job]:
        """Wait for work and take what has gathered; empty means close."""
        jobs: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == _BATCH or self._jobs.empty():
                return jobs
            job = self._jobs.get()
        if jobs:
            self._jobs.put(None)  # close after these
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
            refusal = StorageError(f"database {self._path}", expected="to commit", got=error)
            for job in jobs:
                job.error = job.error or refusal


def migrate(connection: sqlite3.Connection, migrations: Migrations) -> None:
    """Run the scripts that this file has not seen yet, inside the caller's transaction."""
    connection.execute("CREATE TABLE IF NOT EXISTS schema_version (part TEXT PRIMARY KEY, version INTEGER)")
    done = dict(connection.execute("SELECT part, version FROM schema_version"))
    for part, scripts in migrations.items():
        for script in scripts[done.get(part, 0) :]:
            connection.execute(script)
        connection.execute("INSERT OR REPLACE INTO schema_version VALUES (?, ?)", (part, len(scripts)))


def _attempt(connection: sqlite3.Connection, job: _Job) -> None:
    connection.execute("SAVEPOINT job")
    try:
        job.result = job.work(connection)
    except Exception as error:  # noqa: BLE001  # it goes to the caller that brought the work
        job.error = error
        if connection.in_transaction:
            connection.execute("ROLLBACK TO job")
    connection.execute("RELEASE job")


def _answer(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.answer.done():  # the caller was cancelled
            continue
        if job.error is None:
            job.answer.set_result(job.result)
        elif isinstance(job.error, sqlite3.Error):
            refusal = StorageError("database", expected="the statement to succeed", got=job.error)
            job.answer.set_exception(refusal)
        else:
            job.answer.set_exception(job.error)
