import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.parts import (
    DIGEST_BYTES,
    MAX_PART_BYTES,
    Part,
    PartList,
    PartsError,
    decode_part_list,
    encode_part_list,
)

SHA256 = "a" * 64
GOOD = encode_part_list(SHA256, 30, [Part(b"1" * 16, 0, 10), Part(b"2" * 16, 10, 20)])

sizes = st.lists(st.integers(1, MAX_PART_BYTES), min_size=1, max_size=20)


@given(sizes, st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES))
def test_a_list_is_read_as_it_was_written(sizes, digest):
    """Parts keep digest and size, and each begins where the one before it ends."""
    parts = [Part(digest, sum(sizes[:number]), size) for number, size in enumerate(sizes)]
    found = decode_part_list(encode_part_list(SHA256, sum(sizes), parts))
    assert (found.sha256, found.size_bytes) == (SHA256, sum(sizes))
    assert list(found.parts()) == parts


@given(st.binary(max_size=200) | st.tuples(st.integers(0, len(GOOD) - 1), st.binary(max_size=4)))
def test_any_bytes_are_a_list_or_a_parts_error(content):
    """Nothing else is raised, and a list that is accepted adds up to its file."""
    if isinstance(content, tuple):
        position, inserted = content
        content = GOOD[:position] + inserted + GOOD[position + 1 :]
    try:
        found = decode_part_list(content)
    except PartsError:
        return
    assert isinstance(found, PartList)
    assert sum(part.size_bytes for part in found.parts()) == found.size_bytes


@pytest.mark.parametrize(
    ("encoded", "complaint"),
    [
        (b"", "cannot be read"),
        (b"\x91" * 100_000, "cannot be read"),
        (encode_part_list("../../etc", 10, [Part(b"1" * 16, 0, 10)]), "cannot be read"),
        (encode_part_list(SHA256, 2**50, [Part(b"1" * 16, 0, 10)]), "cannot be read"),
        (encode_part_list(SHA256, 31, [Part(b"1" * 16, 0, 10)]), "expected 31 bytes together, got 10"),
        (encode_part_list(SHA256, 10, [Part(b"1" * 16, 0, 0)]), "expected 1 to 8192 bytes, got 0"),
        (encode_part_list(SHA256, 9000, [Part(b"1" * 16, 0, 9000)]), "expected 1 to 8192 bytes, got 9000"),
    ],
)
def test_a_wrong_list_is_refused_with_a_reason(encoded, complaint):
    """The error names what is wrong."""
    with pytest.raises(PartsError, match=complaint):
        decode_part_list(encoded)
