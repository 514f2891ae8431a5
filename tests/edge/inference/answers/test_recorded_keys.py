"""The memory of which photos have a row, compared with the table that it stands for."""

from collections import deque

import pytest

from edge.inference.answers.recorded_keys import RecordedKeys


@pytest.mark.parametrize("kept", [1, 2, 7, 100])
def test_no_key_of_the_newest_rows_is_missed(kept: int) -> None:
    """After any number of rows, each of the newest `kept` is known: a miss would classify a photo again."""
    keys, rows = RecordedKeys(kept), deque[tuple[str, str]](maxlen=kept)
    for number in range(3 * kept + 5):
        key = "cam", f"{number:032x}"
        keys.add([key])
        rows.append(key)
        assert all(row in keys for row in rows), number


def test_few_new_keys_are_taken_for_recorded() -> None:
    """However long it runs, less than an eighth of the photos without a row cost a look-up on the disk."""
    keys = RecordedKeys(500)
    keys.add(("cam", f"{number:032x}") for number in range(10_000))
    new = [("cam", f"{number:032x}") for number in range(100_000, 110_000)]
    assert sum(key in keys for key in new) < len(new) / 8 * 1.2


def test_its_memory_is_bounded_whatever_is_configured() -> None:
    """A node that keeps a thousand million results pays 32 MB, and more look-ups."""
    keys = RecordedKeys(10**9)
    keys.add([("cam", "1")])
    assert keys._bits // 8 == 16 * 1024 * 1024
    assert ("cam", "1") in keys
