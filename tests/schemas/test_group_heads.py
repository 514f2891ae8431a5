"""The file with the heads of groups, and how a head changes an answer."""

import math

import msgspec
import pytest

from schemas.groups.heads import (
    HEADS_FILE,
    GroupHead,
    GroupHeads,
    GroupHeadsError,
    decode_heads,
    encode_heads,
    group_heads,
    pack_kernel,
    read_heads,
)

CLASSES = ("cat", "dog")


def head(
    rows: list[list[float]], bias: tuple[float, ...] = (0.0, 0.0), temperature: float = 1.0
) -> GroupHead:
    """Return a head with this kernel."""
    kernel, scale = pack_kernel(rows)
    return GroupHead(kernel, scale, list(bias), temperature)


NOTHING = head([[0.0, 0.0], [0.0, 0.0]])
SCORES = [
    (NOTHING, [0.8, 0.2], [1.0, 1.0], [0.8, 0.2]),
    # The logarithm of 3 more for the second class: odds of 4 to 1 become 4 to 3.
    (head([[0.0, 0.0], [0.0, 0.0]], (0.0, math.log(3))), [0.8, 0.2], [1.0, 1.0], [4 / 7, 3 / 7]),
    (head([[0.0, 0.0], [math.log(3), 0.0]]), [0.8, 0.2], [2.0, 5.0], [4 / 13, 9 / 13]),
    (head([[0.0, 0.0], [0.0, 0.0]], temperature=2.0), [0.8, 0.2], [1.0, 1.0], [2 / 3, 1 / 3]),
    # What the server rounded to 0 is very unlikely, and no error.
    (head([[0.0, 0.0], [200.0, 0.0]]), [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]),
]


@pytest.mark.parametrize(("one", "probabilities", "embedding", "expected"), SCORES)
def test_a_head_adds_to_the_logits_of_the_shared_one(one, probabilities, embedding, expected):
    """Kernel and bias are added, then the temperature divides."""
    assert one.scores(probabilities, embedding) == pytest.approx(expected, abs=2e-3)


def test_an_answer_that_is_no_number_stays_none():
    """The edge takes NaN for a probability of 0, which never counts as confident."""
    assert all(math.isnan(score) for score in NOTHING.scores([math.nan, 0.5], [1.0, 1.0]))


def test_heads_survive_the_file_and_equal_ones_are_in_it_once():
    """A group that has the head of another one costs its name alone."""
    other = head([[1.0, 2.0], [3.0, -4e-5]])
    heads = group_heads(CLASSES, 2, {"b": other, "a": NOTHING, "c": head([[1.0, 2.0], [3.0, -4e-5]])})
    read = decode_heads(encode_heads(heads))
    assert len(read.heads) == 2
    assert read.of("b") == read.of("c") == other
    assert read.of("a") == NOTHING
    assert read.of("d") is None
    assert [*other.rows[0], *other.rows[1]] == pytest.approx([1.0, 2.0, 3.0, -4e-5], rel=1e-3)


GOOD = group_heads(CLASSES, 2, {"a": NOTHING})


def changed(**fields: object) -> bytes:
    """Encode heads with other fields."""
    return msgspec.msgpack.encode(msgspec.structs.replace(GOOD, **fields))


BAD = [
    (b"", "no valid heads"),
    (encode_heads(GOOD)[:-3], "no valid heads"),
    (encode_heads(GOOD).replace(b"dog", b"d\xffg"), "no valid heads"),  # a flipped bit: no UTF-8
    (changed(format=2), "format 2"),
    (changed(dim=3), "2 rows of 3 numbers"),
    (changed(classes=["a", "b", "c"]), "3 rows of 2 numbers"),
    (changed(groups={"a": 1}), "does not have"),
    (changed(groups={"A b": 0}), "no valid heads"),
    (changed(heads=[msgspec.structs.replace(NOTHING, bias=[math.nan, 0.0])]), "no valid heads"),
    (changed(heads=[msgspec.structs.replace(NOTHING, kernel=b"\x00\x7c" * 4)]), "finite numbers"),
    (changed(heads=[msgspec.structs.replace(NOTHING, kernel=b"\x00")]), "2 rows of 2 numbers"),
]


@pytest.mark.parametrize(("content", "reason"), BAD)
def test_a_bad_file_is_refused_with_a_reason(content, reason):
    """It comes from a bundle, which is not trusted to fit."""
    with pytest.raises(GroupHeadsError, match=reason):
        decode_heads(content)


def test_a_version_without_the_file_has_no_heads(tmp_path):
    """So do all versions of earlier trainings."""
    assert read_heads(tmp_path) is None
    (tmp_path / HEADS_FILE).parent.mkdir()
    (tmp_path / HEADS_FILE).write_bytes(encode_heads(GOOD))
    assert read_heads(tmp_path) == GOOD
    assert isinstance(read_heads(tmp_path), GroupHeads)
