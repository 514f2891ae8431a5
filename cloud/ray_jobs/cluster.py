"""Run a work's pieces as tasks on a Ray cluster, and bring the results into the caches as they come.

A task that was lost with its machine runs again on another one. A result is a set of rows by content id, so
one that came twice would change nothing. Nothing is held for long: tasks are submitted as others end.
"""

import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud.dataset.photo_caches import CacheFile, merge_caches
from cloud.dataset.store import Store
from cloud.progress import Progress
from cloud.ray_jobs.pieces import PHOTOS_PER_PIECE, Piece, plan
from schemas.distribution import install_command
from schemas.errors import PermanentError, TransientError

if TYPE_CHECKING:
    from cloud.ray_jobs.task import Known, Work

SILENT_S = 1800.0
"""How long no task may end before the command gives up, in seconds: a cluster may have to start machines."""
_ATTEMPTS = 8
"""How often a task is tried again that was lost with its machine, or could not read the dataset."""
_POLL_S, _CONNECT_S = 10.0, 10.0
_TRY_AGAIN = "start the command again: what is embedded is in the cache"


def embed_on_ray(
    work: "Work",
    address: str,
    where: str,
    cache_dir: Path,
    progress: Progress,
    *,
    version: int | None = None,
    photos_per_piece: int = PHOTOS_PER_PIECE,
) -> int:
    """Embed the photos of a condition that the caches lack, and return how many there are of the condition.

    Blocks until the last one is in the caches. An interrupted run continues with the pieces that are missing.

    Args:
        work: What to do with each photo.
        address: Of the Ray cluster: HOST:PORT, or `auto` for that of this machine.
        where: Condition in SQL.
        cache_dir: Folder of the caches, on this machine.
        progress: Advances by photos.
        version: Of the dataset; None for the newest.
        photos_per_piece: Of one task.

    Raises:
        PermanentError: Ray is not installed, or a worker lacks Gleaner, the backbone or the dataset.
        TransientError: The cluster cannot be reached, or a task failed on each attempt.
    """
    store = Store.open(work.dataset, create=False)
    # The working folder of a task is another one.
    work = work._replace(dataset=store.table.url if store.table.root is None else store.location)
    pieces = list(plan(store, where, version, photos_per_piece))
    photos = sum(len(piece.photo_ids) for piece in pieces)
    with _connected(address) as ray:
        from cloud.ray_jobs.task import cache_files, known_photos  # noqa: PLC0415  # it builds the network

        files = cache_files(work)
        progress.start("embed photos on Ray", photos)
        for piece, rows in _results(ray, work, pieces, known_photos(work, cache_dir)):
            _store(cache_dir, rows, set(files))
            progress.advance(len(piece.photo_ids))
    return photos


def run_task(work: "Work", piece: Piece, known: "Known") -> list[CacheFile] | str:
    """Run `embed_piece` in a process of Ray's, which has loaded nothing yet.

    Returns:
        The rows, or why they can never be had: not raised, as Ray changes the class of an error.

    Raises:
        TransientError: The dataset cannot be read now, so that Ray tries again.
    """
    from cloud.modeling.load_tensorflow import load_tensorflow  # noqa: PLC0415  # takes seconds

    load_tensorflow()
    from cloud.ray_jobs.task import embed_piece, use_one_core  # noqa: PLC0415  # uses TensorFlow

    use_one_core()  # does nothing where this process had a task before
    try:
        return embed_piece(work, piece, known)
    except PermanentError as error:
        return str(error)


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Connect to a cluster.

    Raises:
        PermanentError: Ray is not installed.
        TransientError: There is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when it is imported
    try:
        import ray  # noqa: PLC0415  # an extra, which takes a second
    except ModuleNotFoundError:
        raise PermanentError(
            "cannot use --ray: Ray is not installed", hint=f"install it with: {install_command('ray')}"
        ) from None
    try:
        _check_listening(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise TransientError(
            f"cannot connect to the Ray cluster {address!r}: {_first_line(error)}",
            hint="check the address; 'ray status' shows a cluster of this machine",
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_listening(address: str) -> None:
    """Raise OSError if nobody listens at HOST:PORT: Ray would wait for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()


def _results(
    ray: Any, work: "Work", pieces: Sequence[Piece], known: "Known"
) -> Iterator[tuple[Piece, list[CacheFile]]]:
    """Yield the result of each piece once, as they come.

    Raises:
        PermanentError, TransientError: A task failed on each attempt.
    """
    task = ray.remote(num_cpus=1, max_retries=_ATTEMPTS, retry_exceptions=[TransientError])(run_task)
    shared, waiting = ray.put(known), iter(pieces)
    running: dict[Any, Piece] = {}
    ended_at = time.monotonic()
    while True:
        # Two for each core, so that none waits for this process; the number of cores changes meanwhile.
        places = 2 + 2 * int(ray.cluster_resources().get("CPU", 0)) - len(running)
        for piece in islice(waiting, max(0, places)):
            running[task.remote(work, piece, shared)] = piece
        if not running:
            return
        ended, _ = ray.wait(list(running), timeout=_POLL_S)
        if not ended and time.monotonic() - ended_at > SILENT_S:
            raise TransientError(f"no task of the Ray cluster ended in {SILENT_S:.0f} s", hint=_TRY_AGAIN)
        for one in ended:
            ended_at = time.monotonic()
            yield running.pop(one), _result(ray, one)


def _result(ray: Any, reference: Any) -> list[CacheFile]:
    try:
        rows: list[CacheFile] | str = ray.get(reference, timeout=SILENT_S)
    except ray.exceptions.RayError as error:
        # The last line of the traceback in it is the error, if the task was not lost.
        last = str(error).strip().splitlines()[-1].strip()
        missing = last.startswith("ModuleNotFoundError")
        raise TransientError(
            f"a task of the Ray cluster failed: {last}",
            hint="its machines need the same Gleaner as this one" if missing else _TRY_AGAIN,
        ) from None
    if isinstance(rows, str):
        raise PermanentError(f"a task of the Ray cluster failed: {rows}")
    return rows


def _store(cache_dir: Path, rows: Sequence[CacheFile], expected: set[str]) -> None:
    """Merge a task's rows into the caches.

    Raises:
        PermanentError: They are of other weights than this machine's.
        TransientError: The caches cannot be written now.
    """
    if other := {file.path for file in rows} - expected:
        raise PermanentError(
            f"the Ray cluster has another Gleaner or other weights: it wrote {', '.join(sorted(other))}",
            hint="install the same on all machines",
        )
    try:
        merge_caches(cache_dir, rows)
    except sqlite3.Error as error:
        raise TransientError(f"cannot write the cache in {cache_dir}: {error}", hint=_TRY_AGAIN) from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
