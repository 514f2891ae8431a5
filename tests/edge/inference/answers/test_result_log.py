"""Final results are recorded once per device and photo id."""

import sqlite3

import msgspec
import pytest

from bus.metrics import Counters
from bus.outbox.damage import DamageLog
from bus.outbox.sqlite import Database
from edge.inference.answers import result_log
from schemas.messages import Result
from tests.nodes import NODE, photo_id


@pytest.fixture
def connection():
    database = sqlite3.connect(":memory:")
    for script in result_log.MIGRATIONS:
        database.execute(script)
    yield database
    database.close()


def answer(number: int, device: str = "pi-1", label: str = "cat") -> Result:
    return Result(
        photo_id=photo_id(number), node=NODE, device=device, status="ok", label=label, answered_at_ms=1
    )


def test_a_recorded_result_is_found(connection):
    """It is equal to the recorded one; photos without a result are absent."""
    result_log.record(connection, [answer(1), answer(2)], kept=10)
    found = result_log.find(connection, [("pi-1", photo_id(2)), ("pi-1", photo_id(3))])
    assert found == {("pi-1", photo_id(2)): answer(2)}


def test_the_first_result_stays(connection):
    """A second result of the same photo is ignored."""
    result_log.record(connection, [answer(1)], kept=10)
    result_log.record(connection, [answer(1, label="dog")], kept=10)
    assert result_log.find(connection, [("pi-1", photo_id(1))]) == {("pi-1", photo_id(1)): answer(1)}


def test_devices_do_not_share_results(connection):
    """Two devices that send the same bytes have a result each."""
    result_log.record(connection, [answer(1), answer(1, "pi-2", "dog")], kept=10)
    keys = [("pi-1", photo_id(1)), ("pi-2", photo_id(1))]
    assert [found.label for found in result_log.find(connection, keys).values()] == ["cat", "dog"]


def test_the_newest_are_kept(connection):
    """Beyond `kept` the oldest results are deleted."""
    for number in range(10):
        result_log.record(connection, [answer(number)], kept=3)
    keys = [("pi-1", photo_id(number)) for number in range(10)]
    assert [key[1] for key in result_log.find(connection, keys)] == [photo_id(n) for n in (7, 8, 9)]


@pytest.mark.parametrize(
    "stored", [b'{"v":1', b"\xff\xfe", b"", b'{"v":1,"photo_id":7}', b'{"v":9}', None, "other", 7]
)
async def test_a_damaged_result_is_set_aside(tmp_path, stored):
    """It is not found, so that the photo is classified again; its neighbours are found, and it is counted."""
    counters = Counters()
    damage = DamageLog(counters)
    tables = {"answers": result_log.MIGRATIONS}
    async with Database(tmp_path / "edge.db", tables, damage=damage) as database:
        await database.run(lambda connection: result_log.record(connection, [answer(1), answer(2)], kept=10))
        content = msgspec.json.encode(answer(2)) if stored == "other" else stored

        def spoil(connection: sqlite3.Connection) -> None:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            connection.execute(
                "UPDATE answer SET result = ? WHERE photo_id = ?", (content or b"", photo_id(1))
            )

        await database.run(spoil)
        keys = [("pi-1", photo_id(1)), ("pi-1", photo_id(2))]
        for _ in range(2):
            found = await database.run(lambda connection: result_log.find(connection, keys))
            assert found == {keys[1]: answer(2)}
        await database.run(lambda connection: result_log.record(connection, [answer(1)], kept=10))
        assert len(await database.run(lambda connection: result_log.find(connection, keys))) == 2
    assert counters.snapshot()["database.damaged"] == 1
