"""Final results are recorded once per device and photo id."""

import sqlite3

import pytest

from edge.inference import result_log
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
