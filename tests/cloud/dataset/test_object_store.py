"""The dataset on two real S3 servers: `make test-s3`, which names their programs.

GLEANER_VERSITYGW keeps objects on a disk, GLEANER_MOTO (moto's server) in memory: it is not killed.
"""

import asyncio
import contextlib
import http.server
import multiprocessing
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from bus.backoff import backoff
from bus.broker.process import free_port, is_listening
from cloud.dataset.schema import Row
from cloud.dataset.store import Store
from schemas.errors import PermanentError, TransientError
from tests.conftest import DEADLINE_S
from tests.proxy import proxy_to
from tests.sites import wait_until

T = TypeVar("T")

pytestmark = pytest.mark.s3
_WRITERS, _ROUNDS, _ROWS = 3, 4, 32
_SILENT_S = 3.0


class Server:
    """A versitygw process on its own port; a test may kill and restart it."""

    survives = True

    def __init__(self, program: str, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "bucket").mkdir()

    def start(self) -> None:
        """Start it and wait for its port."""
        address = f"127.0.0.1:{self.port}"
        command = [self._program, "--port", address, "--quiet", "posix", str(self._folder)]
        secret = {
            "ROOT_ACCESS_KEY": os.environ["AWS_ACCESS_KEY_ID"],
            "ROOT_SECRET_KEY": os.environ["AWS_SECRET_ACCESS_KEY"],
        }
        self._process = subprocess.Popen(command, env=os.environ | secret, stdout=subprocess.DEVNULL)
        wait_until(lambda: is_listening(self.port))

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


class MotoServer(Server):
    """A process of moto's server."""

    survives = False

    def start(self) -> None:
        """Start it, wait for its port, and make the bucket."""
        command = [self._program, "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: is_listening(self.port))
        import s3fs  # noqa: PLC0415  # installed by `make test-s3`

        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bucket")


_SERVERS = {"GLEANER_VERSITYGW": Server, "GLEANER_MOTO": MotoServer}


@pytest.fixture
def credentials(monkeypatch) -> None:
    """Credentials in the environment, where Lance and s3fs look first."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "gleaner",
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=_SERVERS)
def server(request, tmp_path, credentials, monkeypatch) -> Iterator[Server]:
    """A running server with an empty bucket."""
    if request.param not in os.environ:
        pytest.skip(f"{request.param} names no program; 'make test-s3' does")
    made = _SERVERS[request.param](os.environ[request.param], tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{made.port}")
    made.start()
    yield made
    made.kill()


def rows(start: int, count: int) -> list[Row]:
    return [
        Row(photo_id=f"{number:032x}", image=b"x" * 1000, width=16, height=16, received_at_ms=1)
        for number in range(start, start + count)
    ]


def write(url: str, starts: list[int]) -> None:
    """Store batches that overlap with those of other processes; again while the store is away."""
    store = again(lambda: Store.open(url))
    for start in starts:
        again(partial(store.upsert, rows(start, _ROWS)))


def again(work: Callable[[], T]) -> T:
    """Call until it succeeds, as the collector does."""
    for delay_s in backoff(0.1, 1.0):
        with contextlib.suppress(TransientError):
            return work()
        time.sleep(delay_s)
    raise AssertionError


def ids(store: Store) -> list[str]:
    return sorted(str(row["photo_id"]) for row in store.scan(["photo_id"]))


def run_writers(url: str) -> None:
    """Run processes whose ranges of ids overlap by half."""
    context = multiprocessing.get_context("spawn")
    starts = [number * _ROWS // 2 for number in range(_WRITERS * _ROUNDS)]
    writers = [
        context.Process(target=write, args=(url, starts[first::_WRITERS])) for first in range(_WRITERS)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(5 * DEADLINE_S)
        assert writer.exitcode == 0


def expected_ids() -> list[str]:
    return [f"{number:032x}" for number in range((_WRITERS * _ROUNDS + 1) * _ROWS // 2)]


def test_g2_writers_with_the_same_ids_store_each_once(server):
    """Without a lock, by conditional writes and the revision of each row."""
    url = "s3://bucket/dataset.lance"
    Store.open(url)
    run_writers(url)
    assert ids(Store.open(url, create=False)) == expected_ids()


def test_g2_a_server_killed_between_and_during_commits_loses_and_doubles_nothing(server):
    """Writers that fail write the same rows again, as the collector does; after any failed commit."""
    if not server.survives:
        pytest.skip("this server keeps its objects in memory")
    url = "s3://bucket/dataset.lance"
    Store.open(url)
    stop = threading.Event()

    def kill_repeatedly() -> None:
        while not stop.wait(1.0):
            server.kill()
            server.start()

    killer = threading.Thread(target=kill_repeatedly)
    killer.start()
    try:
        run_writers(url)
    finally:
        stop.set()
        killer.join()
    assert ids(Store.open(url, create=False)) == expected_ids()


async def test_g2_a_slow_and_silent_server_loses_and_doubles_nothing(server, monkeypatch):
    """Each packet takes 50 ms, and in the middle the server is silent: two writers store each id once."""
    url = "s3://bucket/dataset.lance"
    async with proxy_to(server.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        store = await asyncio.to_thread(Store.open, url)
        proxy.delay_s = 0.05
        starts = [number * _ROWS // 2 for number in range(4)]
        writers = [
            asyncio.create_task(asyncio.to_thread(write, url, some)) for some in (starts[::2], starts[1::2])
        ]
        version = await asyncio.to_thread(lambda: store.version)
        while await asyncio.to_thread(lambda: store.version) == version:
            pass
        proxy.go_silent()
        await asyncio.sleep(_SILENT_S)
        proxy.resume()
        await asyncio.gather(*writers)
        found = await asyncio.to_thread(ids, store)
    assert found == [f"{number:032x}" for number in range(5 * _ROWS // 2)]


def test_a_table_is_maintained_as_on_a_disk(server):
    """Tags, compaction, clean-up and retention: rows that were removed are in no version any more."""
    store = Store.open("s3://bucket/dataset.lance")
    for start in range(0, 128, _ROWS):
        store.upsert(rows(start, _ROWS))
    store.tag("v1")
    assert store.tags() == {"v1": store.version}
    assert store.table.compact().fragments_removed == 4
    store.table.delete(f"photo_id < '{64:032x}'")
    assert store.count(version="v1") == 128
    assert store.purge() == ["v1"]
    assert ids(store) == expected_ids()[64:128]
    assert store.table.small_fragments() == 1


class _Accepting(http.server.BaseHTTPRequestHandler):
    """An S3 server that ignores the condition of a write."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        """Answer a listing: there is nothing."""
        empty = b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"
        self.send_response(200 if "list-type" in self.path else 404)
        self.send_header("Content-Length", str(len(empty)))
        self.end_headers()
        self.wfile.write(empty)

    def do_DELETE(self) -> None:
        self.send_response(204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_a_store_without_conditional_writes_is_refused(credentials, monkeypatch):
    """Before a table is created, with a sentence that names what it lacks."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Accepting) as accepting:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{accepting.server_port}")
        thread = threading.Thread(target=accepting.serve_forever)
        thread.start()
        try:
            with pytest.raises(PermanentError, match="ignores conditional writes"):
                Store.open("s3://bucket/dataset.lance")
        finally:
            accepting.shutdown()
            thread.join()
