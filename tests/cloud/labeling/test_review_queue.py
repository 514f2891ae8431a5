"""Rules of cloud/labeling/review_queue.py: what a person is asked, and in which order."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.dataset.store import Label, Row, Store
from cloud.labeling.review_queue import (
    UnlabelledPhoto,
    awaiting_review,
    known_classes,
    most_informative,
    uncertainty,
)
from schemas.messages import NEITHER
from tests.conftest import jpeg

UNIT = st.floats(0, 1)
PHOTOS = st.builds(
    UnlabelledPhoto,
    photo_id=st.integers(0, 2**128 - 1).map("{:032x}".format),
    dhash=st.none() | st.sampled_from([0, 7, 2**64 - 1, 2**40 - 1]).map("{:016x}".format),
    lane=st.sampled_from(["auto", "hard", "audit", None]),
    edge_label=st.sampled_from(["cat", "dog", None]),
    teacher_label=st.sampled_from(["cat", "dog", None]),
    confidence=st.none() | UNIT,
    margin=st.none() | UNIT,
    entropy=st.none() | UNIT,
    novelty=st.none() | st.floats(0, 1e6),
)
LISTS = st.lists(PHOTOS, max_size=12, unique_by=lambda photo: photo.photo_id)


def waiting(number: int, **fields: Any) -> UnlabelledPhoto:
    facts: dict[str, Any] = {"lane": "hard", "edge_label": "cat", "dhash": None}
    return UnlabelledPhoto(photo_id=f"{number:032x}", **(facts | fields))


def order(*photos: UnlabelledPhoto) -> list[int]:
    return [int(photo.photo_id, 16) for photo in most_informative(photos, 99)]


def test_audit_comes_before_disagreement_before_doubt() -> None:
    """Labels of the lane audit decide the gate; where teacher and edge disagree, one of them is wrong."""
    assert order(
        waiting(1, entropy=0.9),
        waiting(2, teacher_label="dog", entropy=0.1),
        waiting(3, lane="audit", entropy=0.0),
        waiting(4, teacher_label="cat", entropy=1.0),
    ) == [3, 2, 4, 1]


def test_nothing_that_a_model_said_orders_the_lane_audit() -> None:
    """Who stops half-way through it has labelled a fair sample."""
    photos = [waiting(n, lane="audit", entropy=n / 9) for n in (3, 1, 2)]
    assert order(*photos, waiting(4, lane="audit", teacher_label="dog")) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("more", "less"),
    [
        ({"entropy": 0.6}, {"entropy": 0.5}),
        ({"margin": 0.1}, {"margin": 0.2}),
        ({"novelty": 2.0}, {"novelty": 1.5}),
        ({"confidence": 0.5}, {"confidence": 0.6}),
        ({"confidence": 0.99, "novelty": 3.0}, {"confidence": 0.5}),
        ({}, {"confidence": 0.1}),
    ],
)
def test_the_more_doubtful_comes_first(more: dict[str, float], less: dict[str, float]) -> None:
    """High entropy, small margin, high novelty or low confidence: each alone is a reason to ask."""
    assert uncertainty(waiting(2, **more)) > uncertainty(waiting(1, **less))
    assert order(waiting(1, **less), waiting(2, **more)) == [2, 1]


def test_twenty_frames_of_a_view_do_not_fill_the_list() -> None:
    """Of near-identical frames the most doubtful is asked, the others stand behind all other views."""
    frames = [waiting(n, entropy=0.9 + n / 1000, dhash=f"{1 << n % 6:016x}") for n in range(20)]
    others = [waiting(100 + n, entropy=0.1, dhash=f"{0xFFFF << 16 * n:016x}") for n in range(3)]
    chosen = [int(photo.photo_id, 16) for photo in most_informative([*frames, *others], 5)]
    assert chosen == [19, 100, 101, 102, 18]


def test_frames_of_the_lane_audit_are_all_asked() -> None:
    """Leaving some out would make the audited accuracy a biased one."""
    photos = [waiting(n, lane="audit", dhash="0" * 16) for n in (1, 2)]
    assert order(waiting(3, dhash="f" * 16), *photos) == [1, 2, 3]


def test_audits_are_at_most_half_of_what_is_asked() -> None:
    """However many wait, by their ids alone; where others are too few, audits take their place."""
    audits = [waiting(n, lane="audit", entropy=n / 9) for n in (4, 3, 2, 1)]
    others = [waiting(n, entropy=n / 99) for n in (11, 12, 13)]

    def first(limit: int, *photos: UnlabelledPhoto) -> list[int]:
        return [int(photo.photo_id, 16) for photo in most_informative(photos, limit)]

    assert first(4, *audits, *others) == [1, 2, 13, 12]
    assert first(5, *audits, *others) == [1, 2, 3, 13, 12]
    assert first(6, *audits, *others[:1]) == [1, 2, 3, 4, 11]
    assert first(3, *audits) == [1, 2, 3]


@given(LISTS, st.integers(0, 15), st.randoms())
def test_the_order_is_one_and_complete(photos: list[UnlabelledPhoto], limit: int, chance: Any) -> None:
    """Any photos: as many as wanted, each once, audit first, the same however they come in."""
    chosen = most_informative(photos, limit)
    assert len(chosen) == min(limit, len(photos))
    assert len({photo.photo_id for photo in chosen}) == len(chosen)
    audits = [photo.lane == "audit" for photo in chosen]
    assert audits == sorted(audits, reverse=True)
    others = sum(photo.lane != "audit" for photo in photos)
    assert sum(audits) <= max(limit - others, (limit + 1) // 2)
    assert all(0 <= uncertainty(photo) <= 1 for photo in photos)
    chance.shuffle(photos)
    assert most_informative(photos, limit) == chosen


def row(number: int, **fields: Any) -> Row:
    facts: dict[str, Any] = {"image": jpeg(number), "width": 160, "height": 120, "received_at_ms": 1}
    return Row(
        photo_id=f"{number:032x}", **(facts | {"lane": "hard", "node": "edge-1", "device": "pi-1"} | fields)
    )


def test_what_waits_is_harvested_and_not_labelled_by_a_person(tmp_path: Any) -> None:
    """A teacher's label does not end the waiting; imported photos never wait."""
    store = Store.open(tmp_path / "dataset")
    store.upsert(
        [
            *(row(n, confidence=c, edge_label="cat") for n, c in {1: 0.9, 2: 0.5, 4: 0.7, 5: 0.1}.items()),
            row(6, origin="import", lane=None),
        ]
    )
    store.label(
        [
            Label(photo_id=f"{5:032x}", label="cow", by="ann", at_ms=1),
            Label(photo_id=f"{4:032x}", label="cat", by="teacher/1", at_ms=1, annotator="teacher"),
            Label(photo_id=f"{7:032x}", label="cat", by="ann", at_ms=1),
        ]
    )
    chosen = awaiting_review(store, 2)
    assert [int(review.photo_id, 16) for review in chosen] == [2, 4]
    assert (chosen[0].image, chosen[0].node, chosen[0].device) == (jpeg(2), "edge-1", "pi-1")
    assert len(awaiting_review(store, 99)) == 3
    assert known_classes(store) == ["cat", "cow"]


def test_a_photo_of_neither_waits_no_more(tmp_path: Any) -> None:
    """It has its label, and that is no class to choose from."""
    store = Store.open(tmp_path / "dataset")
    store.upsert([row(1, lane="audit", edge_label="cat"), row(2, edge_label="cat")])
    store.label([Label(photo_id=f"{1:032x}", label=NEITHER, by="ann", at_ms=1)])
    assert [int(review.photo_id, 16) for review in awaiting_review(store, 9)] == [2]
    assert known_classes(store) == ["cat"]
