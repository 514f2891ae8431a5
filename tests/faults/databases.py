"""Read what a run left on disk: the databases of devices and edge, and the dataset."""

import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cloud.dataset.store import Store
from schemas.errors import PermanentError
from schemas.messages import Result
from tests.faults import components
from tests.faults.components import Component

_SAMPLES = "origin = 'sample'"


@dataclass(frozen=True, slots=True)
class Contents:
    """Contents of the database of a device or an edge.

    Args:
        accepted: Messages that its outbox has accepted, including removed ones.
        waiting: Messages in its outbox.
        answers: The recorded results.
    """

    accepted: int = 0
    waiting: int = 0
    answers: tuple[Result, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the dataset."""

    photo_id: str
    edge_label: str
    image: bytes
    device: str | None = None


def read(path: Path) -> Contents:
    """Read a database of a process that does not run; it is empty before the process has created it."""
    connection = sqlite3.connect(path)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if not {"answer", "outbox"} <= tables:
            return Contents()
        # SQLite keeps the number of rows ever inserted in the same transaction as the rows themselves.
        accepted = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
        waiting = connection.execute("SELECT count(*) FROM outbox").fetchone()
        results = connection.execute("SELECT result FROM answer ORDER BY seq").fetchall()
    finally:
        connection.close()
    answers = tuple(msgspec.json.decode(result, type=Result) for (result,) in results)
    return Contents(accepted[0] if accepted else 0, waiting[0], answers)


def read_running(path: Path, owner: Component) -> Contents:
    """Read the database of a running process, as a power cut would leave it at this moment."""
    # A copy, because SQLite would otherwise recover the write-ahead log of the running process.
    with tempfile.TemporaryDirectory() as folder:
        components.pause(owner)
        try:
            for part in path.parent.glob(f"{path.name}*"):
                shutil.copy(part, folder)
        finally:
            components.resume(owner)
        return read(Path(folder, path.name))


def stored(dataset: Path) -> int:
    """Count the samples of the dataset."""
    return 0 if (store := _opened(dataset)) is None else store.count(_SAMPLES)


def rows(dataset: Path) -> list[Row]:
    """Read the samples of the dataset."""
    columns = list(Row.__dataclass_fields__)
    found = [] if (store := _opened(dataset)) is None else store.scan(columns, where=_SAMPLES)
    return [Row(**record) for record in found]  # type: ignore[arg-type]  # the columns of these types


def _opened(dataset: Path) -> Store | None:
    """Open the dataset; there is none until the collector, which takes seconds to start, has created it."""
    try:
        return Store.open(dataset, create=False)
    except PermanentError:
        return None
