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


def test_a_recorded_answer_is_found_as_it_was(connection):
    """What was recorded comes back equal, and only for the photos asked for."""
    result_log.record(connection, [answer(1), answer(2)], kept=10)
    found = result_log.find(connection, [("pi-1", photo_id(2)), ("pi-1", photo_id(3))])
    assert found == {("pi-1", photo_id(2)): answer(2)}


def test_the_first_answer_stands(connection):
    """A second answer to the same photo changes nothing."""
    result_log.record(connection, [answer(1)], kept=10)
    result_log.record(connection, [answer(1, label="dog")], kept=10)
    assert result_log.find(connection, [("pi-1", photo_id(1))]) == {("pi-1", photo_id(1)): answer(1)}


def test_devices_do_not_share_answers(connection):
    """Two devices that send the same bytes have an answer each."""
    result_log.record(connection, [answer(1), answer(1, "pi-2", "dog")], kept=10)
    keys = [("pi-1", photo_id(1)), ("pi-2", photo_id(1))]
    assert [found.label for found in result_log.find(connection, keys).values()] == ["cat", "dog"]


def test_the_newest_are_kept(connection):
    """The record is bounded: beyond `kept` the oldest are forgotten."""
    for number in range(10):
        result_log.record(connection, [answer(number)], kept=3)
    keys = [("pi-1", photo_id(number)) for number in range(10)]
    assert [key[1] for key in result_log.find(connection, keys)] == [photo_id(n) for n in (7, 8, 9)]
