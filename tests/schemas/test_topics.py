import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import TopicError
from schemas.topics import NAME, PHOTO, RELEASE, RESULT, TOPICS, check_filter, check_name, find

names = st.from_regex(NAME, fullmatch=True)


@given(node=names, device=names)
def test_a_name_and_its_match_are_inverse(node, device):
    """`match` returns the values from which `name` built the topic."""
    assert PHOTO.match(PHOTO.name(node=node, device=device)) == {"node": node, "device": device}


@given(st.text())
def test_only_dns_labels_are_names(text):
    """A name is 1 to 63 lower-case letters, digits and inner hyphens; anything else raises TopicError."""
    good = 0 < len(text) < 64 and set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    good = good and not text.startswith("-") and not text.endswith("-")
    if good:
        assert check_name(text) == text
    else:
        with pytest.raises(TopicError):
            check_name(text)


@pytest.mark.parametrize("name", ["a/b", "", "A", "a_b", "+", "#", "é", "a" * 64, "-a", "a\n"])
def test_hostile_names_are_rejected(name):
    """Names with separators, wildcards, or characters outside DNS labels raise TopicError."""
    with pytest.raises(TopicError):
        PHOTO.name(node="edge-1", device=name)


def test_filters():
    """A filter has a + for each name that is not given."""
    assert RESULT.filter == "gleaner/v1/result/+/+"
    assert RESULT.select(node="edge-1") == "gleaner/v1/result/edge-1/+"
    assert RELEASE.select(node="edge-1") == "gleaner/v1/release/edge-1"


@pytest.mark.parametrize(
    "topic",
    [
        "gleaner/v1/photo/edge-1",
        "gleaner/v1/photo/edge-1/a/b",
        "gleaner/v2/photo/edge-1/a",
        "photo",
        "",
        "gleaner/v1/photo/E/a",
    ],
)
def test_other_topics_do_not_match(topic):
    """A topic with another number of levels, another root or an invalid name does not match."""
    assert PHOTO.match(topic) is None


def test_each_topic_is_found_by_its_name():
    """`find` returns each topic for its own names."""
    for topic in TOPICS:
        values = dict.fromkeys(topic.names, "x")
        assert find(topic.name(**values)) == (topic, values)


def test_a_missing_or_unknown_name_is_an_error():
    """Building a topic needs exactly its names; the error names the wrong one."""
    with pytest.raises(TopicError, match="needs a value for device"):
        PHOTO.name(node="edge-1")
    with pytest.raises(TopicError, match="has no name device"):
        RELEASE.name(node="edge-1", device="pi-1")


@pytest.mark.parametrize("text", ["#", "+/#", "a//b", "$SYS/#", "$share/g/a/+", "cam/größe", "a" * 65_535])
def test_a_filter_that_a_broker_takes_is_returned(text):
    """Wildcards stand for whole levels, and a level may be empty."""
    assert check_filter(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "a+", "#/a", "a/b#", "a\0", "a\x01", "a\x7f", "a\x85", "a\udcff", "\ufdd0", "\uffff"),
        *("\U0001fffe", "$share/g", "$share//a", "$share/g/", "a" * 65_536, "é" * 32_768, "/" * 200),
    ],
)
def test_a_filter_that_a_broker_refuses_is_one_sentence(text):
    """A broker would answer nothing, or end the connection again and again."""
    with pytest.raises(TopicError) as refusal:
        check_filter(text)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 300
