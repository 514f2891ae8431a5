"""Rules of cloud/dataset/table/lance_errors.py: what Lance's errors are taken for."""

import pytest

from cloud.dataset.table.lance_errors import is_bad_query, is_damaged_file, lance_message


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Invalid user input: Schema error: No field named nothing, /src/lance/scanner.rs:1:2", (True, True)),
        ("Invalid user input: file too short, /src/lance-file/reader.rs:281:13", (False, True)),
        ("Not found: /dataset.lance/data/1.lance, /src/lance-io/local.rs:1:2", (False, True)),
        ("Generic S3 error: connection refused", (False, False)),
    ],
)
def test_a_wrong_query_is_distinguished_from_a_damaged_file(text: str, found: tuple[bool, bool]) -> None:
    """A query is looked at first, because Lance calls both of them invalid input."""
    assert (is_bad_query(OSError(text)), is_damaged_file(OSError(text))) == found


def test_positions_in_the_source_of_lance_are_not_shown() -> None:
    """People get the sentence, without the place in Rust and the backtrace behind it."""
    error = OSError("LanceError(IO): cut off, /home/ci/rust/lance/src/dataset.rs:12:34\n  0: backtrace")
    assert lance_message(error) == "LanceError(IO): cut off"
