from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bus.notifications.digest import Digest, News

FAILED = News("round.failed", "trainer: no labels")


def test_the_first_news_wait_for_others_that_come_with_them():
    """Nothing is due before `gather_s`; then all go in one message."""
    digest = Digest(gather_s=5, every_s=300)
    digest.add(FAILED, 100)
    digest.add(News("node.silent", "edge-1.edge is silent"), 103)
    assert (digest.take(104.9), digest.due_at) == (None, 105)
    message = digest.take(105)
    assert message.title == "Gleaner: 2 messages: round.failed, node.silent"
    assert message.body == "round.failed: trainer: no labels\nnode.silent: edge-1.edge is silent"
    assert (digest.due_at, digest.take(200)) == (None, None)


def test_messages_are_a_least_time_apart_and_summed_up():
    """What happens within `every_s` of a message is sent at its end, three texts of each kind at most."""
    digest = Digest(gather_s=5, every_s=300)
    digest.add(FAILED, 0)
    assert digest.take(5).title == "Gleaner: round.failed: trainer: no labels"
    for number in range(40):
        digest.add(News("model.failed", f"edge-{number}"), 10 + number)
    assert digest.take(304) is None
    message = digest.take(305)
    assert message.title == "Gleaner: 40 messages: model.failed"
    assert message.body.splitlines() == [
        "model.failed: edge-37", "model.failed: edge-38", "model.failed: edge-39",
        "model.failed: and 37 more before",
    ]  # fmt: skip


def test_after_a_long_silence_only_the_short_wait_applies():
    """A message an hour after the last one waits for `gather_s` alone."""
    digest = Digest(gather_s=5, every_s=300)
    digest.add(FAILED, 0)
    digest.take(5)
    digest.add(FAILED, 4000)
    assert digest.due_at == 4005


@given(st.lists(st.tuples(st.floats(0, 1e4), st.sampled_from("abc"), st.text(max_size=400)), max_size=12))
def test_g3_a_message_is_bounded_and_of_one_line_each(news):
    """G3: for any texts, a message has few lines, of printable characters and bounded length."""
    digest = Digest(gather_s=0, every_s=60)
    sent = []
    for now, kind, text in sorted(news):
        digest.add(News(kind, text), now)
        if (message := digest.take(now)) is not None:
            sent.append(now)
            assert len(message.body.split("\n")) <= 3 * 4
            assert all(line.isprintable() and len(line) < 340 for line in message.body.split("\n"))
    assert all(later - earlier >= 60 for earlier, later in pairwise(sent))
