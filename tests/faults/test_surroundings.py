"""The faults of the surroundings take effect, in a separate process and on a separate connection."""

import asyncio
import random
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import DEADLINE_S
from tests.faults.hostile import HOSTILE
from tests.faults.preload import DISK_FAULTS, Preload, build, compiler
from tests.proxy import MqttPackets, proxy_to

_PROGRAM = """
import ctypes, sqlite3, sys, time
database = sqlite3.connect(sys.argv[1])
database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE one (number)")
syncs = ctypes.CDLL(None).gleaner_wal_syncs
for line in sys.stdin:
    before = syncs()
    try:
        if line == "open\\n":
            open(sys.argv[1] + "-new", "w").close()
        elif line == "record\\n":
            with open(sys.argv[1] + ".accepted", "ab", buffering=0) as record:
                record.write(b"a line\\n")
        else:
            database.execute("INSERT INTO one VALUES (1)")
            database.commit()
        answer = "ok"
    except (OSError, sqlite3.Error) as error:
        database.rollback()
        answer = type(error).__name__
    print(answer, syncs() - before, int(time.time()), flush=True)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if compiler() is None:
        pytest.skip("no C compiler")
    return build(tmp_path_factory.mktemp("preload"))


def test_disk_and_clock_of_a_process_fail_and_recover(library, tmp_path):
    """Each disk fault fails a commit or an open, but no record; commits sync the log; the clock jumps."""
    preload = Preload(library, tmp_path / "page", tmp_path)
    command = (sys.executable, "-c", _PROGRAM, str(tmp_path / "a.db"))
    with subprocess.Popen(
        command, env=preload.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:

        def ask(what: str) -> list[str]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{what}\n")
            return process.stdout.readline().split()

        assert ask("write")[:2] == ["ok", "1"]
        for fault in DISK_FAULTS.values():
            preload.set(**fault)
            assert ask("write")[0] == "OperationalError"
            assert (ask("open")[0] == "OSError") == ("open" in fault)
            assert ask("record")[0] == "ok"  # else the laboratory, not the product, would end a device
            preload.set()
            assert ask("write")[0] == "ok"
        now = int(ask("write")[2])
        preload.set(clock_s=-86_400)
        assert int(ask("write")[2]) < now - 80_000
        process.stdin.close()
    assert sqlite3.connect(tmp_path / "a.db").execute("SELECT count(*) FROM one").fetchone()[0] >= 7


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.data())
def test_packets_are_found_wherever_the_stream_is_cut(bodies, data):
    """The first packet that begins in a chunk is found, for any lengths and any chunks."""
    packets = [b"\x30" + _length(len(body)) + body for body in bodies]
    stream = b"".join(packets)
    begins = {sum(map(len, packets[:number])) for number in range(len(packets))}
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=6)) | {0, len(stream)})
    reader = MqttPackets()
    for start, end in pairwise(cuts):
        inside = sorted(begin - start for begin in begins if start <= begin < end)
        assert reader.feed(stream[start:end]) == (inside[0] if inside else None)


def _length(number: int) -> bytes:
    groups = bytearray()
    while True:
        number, group = divmod(number, 128)
        groups.append(group | (128 if number else 0))
        if not number:
            return bytes(groups)


async def test_corrupt_and_half_open_connections():
    """`corrupt` inserts garbage before the next packet; `half_open` swallows answers until healed."""
    answers = asyncio.Queue[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(ConnectionResetError):
            while chunk := await reader.read(100):
                answers.put_nowait(chunk)
                writer.write(chunk)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(DEADLINE_S), proxy_to(server.sockets[0].getsockname()[1]) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        packet = b"\x30\x02ab"
        writer.write(packet)
        assert await reader.readexactly(4) == packet
        proxy.half_open = True
        writer.write(packet)
        assert [await answers.get(), await answers.get()] == [packet, packet]
        proxy.heal()
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(packet)
        assert await reader.readexactly(4) == packet
        proxy.corrupt()
        writer.write(packet)
        assert (await reader.readexactly(20)).startswith(b"\xff" * 16)
        writer.close()


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_devices_send_something(kind):
    """Each kind yields messages below the broker's limit, and others with another seed or time."""
    first, second = (list(HOSTILE[kind](random.Random(seed))) for seed in (1, 2))
    assert 0 < max(len(payload) for _, payload in first) < 3_000_000
    assert first != second
