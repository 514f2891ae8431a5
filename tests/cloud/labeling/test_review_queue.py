"""Rules of cloud/labeling/review_queue.py: rank of the photos to label."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.dataset.store import Label, Row, Store
from cloud.labeling import review_queue
from cloud.labeling.review_order import pool_weights
from cloud.labeling.review_queue import (
    UnlabelledPhoto,
    awaiting_review,
    informativeness,
    known_classes,
    most_informative,
)
from cloud.modeling.alignment import moments_by_group
from schemas.class_names import NEITHER
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


def unlabelled(number: int, **fields: Any) -> UnlabelledPhoto:
    facts: dict[str, Any] = {"lane": "hard", "edge_label": "cat", "dhash": None}
    return UnlabelledPhoto(photo_id=f"{number:032x}", **(facts | fields))


def order(*photos: UnlabelledPhoto) -> list[int]:
    return [int(photo.photo_id, 16) for photo in most_informative(photos, 99)]


def test_audit_precedes_disagreement_precedes_the_rest() -> None:
    """Lane audit comes first, then disagreement of teacher and edge, then the others."""
    assert order(
        unlabelled(1, entropy=0.9),
        unlabelled(2, teacher_label="dog", entropy=0.1),
        unlabelled(3, lane="audit", entropy=0.0),
        unlabelled(4, teacher_label="cat", entropy=1.0),
    ) == [3, 2, 4, 1]


def test_audit_photos_are_ordered_by_id_alone() -> None:
    """No model output orders lane audit, so that its first photos are an unbiased sample too."""
    photos = [unlabelled(n, lane="audit", entropy=n / 9) for n in (3, 1, 2)]
    assert order(*photos, unlabelled(4, lane="audit", teacher_label="dog")) == [1, 2, 3, 4]


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
def test_more_uncertain_photo_comes_first(more: dict[str, float], less: dict[str, float]) -> None:
    """High entropy, small margin, high novelty or low confidence each raises the rank."""
    assert informativeness(unlabelled(2, **more)) > informativeness(unlabelled(1, **less))
    assert order(unlabelled(1, **less), unlabelled(2, **more)) == [2, 1]


def test_near_duplicates_come_last() -> None:
    """Of near-identical frames the most informative is listed, the others come after all other photos."""
    frames = [unlabelled(n, entropy=0.9 + n / 1000, dhash=f"{1 << n % 6:016x}") for n in range(20)]
    others = [unlabelled(100 + n, entropy=0.1, dhash=f"{0xFFFF << 16 * n:016x}") for n in range(3)]
    chosen = [int(photo.photo_id, 16) for photo in most_informative([*frames, *others], 5)]
    assert chosen == [19, 100, 101, 102, 18]


def test_audit_near_duplicates_are_all_listed() -> None:
    """Near-duplicates in lane audit keep their place: leaving them out would bias the audited accuracy."""
    photos = [unlabelled(n, lane="audit", dhash="0" * 16) for n in (1, 2)]
    assert order(unlabelled(3, dhash="f" * 16), *photos) == [1, 2, 3]


def test_audit_is_at_most_half_of_the_list() -> None:
    """Lane audit fills at most half of the list, and more only if there are too few others."""
    audits = [unlabelled(n, lane="audit", entropy=n / 9) for n in (4, 3, 2, 1)]
    others = [unlabelled(n, entropy=n / 99) for n in (11, 12, 13)]

    def first(limit: int, *photos: UnlabelledPhoto) -> list[int]:
        return [int(photo.photo_id, 16) for photo in most_informative(photos, limit)]

    assert first(4, *audits, *others) == [1, 2, 13, 12]
    assert first(5, *audits, *others) == [1, 2, 3, 13, 12]
    assert first(6, *audits, *others[:1]) == [1, 2, 3, 4, 11]
    assert first(3, *audits) == [1, 2, 3]


@given(LISTS, st.integers(0, 15), st.randoms())
def test_order_is_deterministic_and_complete(photos: list[UnlabelledPhoto], limit: int, chance: Any) -> None:
    """The list has as many photos as asked for, each once, audit first, for any input order."""
    chosen = most_informative(photos, limit)
    assert len(chosen) == min(limit, len(photos))
    assert len({photo.photo_id for photo in chosen}) == len(chosen)
    audits = [photo.lane == "audit" for photo in chosen]
    assert audits == sorted(audits, reverse=True)
    others = sum(photo.lane != "audit" for photo in photos)
    assert sum(audits) <= max(limit - others, (limit + 1) // 2)
    assert all(0 <= informativeness(photo) <= 1 for photo in photos)
    chance.shuffle(photos)
    assert most_informative(photos, limit) == chosen


def row(number: int, **fields: Any) -> Row:
    facts: dict[str, Any] = {"image": jpeg(number), "width": 160, "height": 120, "received_at_ms": 1}
    return Row(
        photo_id=f"{number:032x}", **(facts | {"lane": "hard", "node": "edge-1", "device": "pi-1"} | fields)
    )


def test_only_samples_without_a_human_label_await_review(tmp_path: Any) -> None:
    """A photo with a teacher label awaits review; an imported or human-labelled one does not."""
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


def test_photos_since_the_last_training_come_first(tmp_path: Any) -> None:
    """What waited when the newest version was trained comes last, however uncertain it is."""
    store = Store.open(tmp_path / "dataset")

    def listed() -> list[int]:
        return [int(review.photo_id, 16) for review in awaiting_review(store, 4)]

    store.upsert([row(1, entropy=0.9), row(2, entropy=0.8)])
    store.tag("model-9")
    assert listed() == [1, 2]
    store.upsert([row(3, entropy=0.7)])
    assert listed() == [3, 1, 2]
    store.tag("model-10")
    store.upsert([row(4, entropy=0.5), row(5, entropy=0.6)])
    assert listed() == [5, 4, 1, 2]


def test_photo_labelled_neither_does_not_await_review(tmp_path: Any) -> None:
    """NEITHER is a human label, but not a known class."""
    store = Store.open(tmp_path / "dataset")
    store.upsert([row(1, lane="audit", edge_label="cat"), row(2, edge_label="cat")])
    store.label([Label(photo_id=f"{1:032x}", label=NEITHER, by="ann", at_ms=1)])
    assert [int(review.photo_id, 16) for review in awaiting_review(store, 9)] == [2]
    assert known_classes(store) == ["cat"]


def embedded(number: int, vector: list[float], **fields: Any) -> Row:
    return row(number, embedding=np.array(vector, "<f4").tobytes(), edge_label="cat", **fields)


def reviewed(store: Store, limit: int) -> list[tuple[int, str | None]]:
    return [(int(item.photo_id, 16), item.reason) for item in awaiting_review(store, limit)]


def test_photos_unlike_the_labelled_ones_come_first(tmp_path: Any) -> None:
    """Of two kinds of photos the kind without a label is asked about first, however certain the model is."""
    store = Store.open(tmp_path / "dataset")
    kinds = {1: [5.0, 0.0, 0.0], 2: [0.0, 5.0, 0.0]}
    draw = np.random.default_rng(0)
    noise = draw.normal(0, 0.1, (40, 3))
    store.upsert(
        [
            embedded(n, list(kinds[1 + n % 2] + noise[n]), confidence=0.5 if n % 2 == 0 else 0.99)
            for n in range(40)
        ]
    )
    store.label([Label(photo_id=f"{0:032x}", label="cat", by="ann", at_ms=1)])  # of the first kind
    (first, reason), (second, _) = reviewed(store, 2)
    assert (first % 2, reason) == (1, "coverage")
    assert first != second


def test_each_photo_says_why_it_is_asked_about(tmp_path: Any) -> None:
    """Every reason that applies to a photo is given with it."""
    store = Store.open(tmp_path / "dataset")
    store.upsert(
        [
            row(1, lane="audit", edge_label="cat"),
            embedded(2, [1.0, 2.0]),
            embedded(3, [1.0, 2.0]),
            row(4, edge_label="cat", confidence=0.9, dhash="0" * 16),
            row(5, edge_label="cat", confidence=0.6),
            row(6, edge_label="cat", confidence=0.95, dhash="0" * 16),
        ]
    )
    store.label([Label(photo_id=f"{4:032x}", label="dog", by="teacher/1", at_ms=1, annotator="teacher")])
    assert reviewed(store, 9) == [
        (1, "audit"),
        (2, "coverage"),
        (4, "disagreement"),
        (3, "uncertainty"),  # covered by the equal photo 2; without any score it counts as most uncertain
        (5, "uncertainty"),
        (6, "near-duplicate"),
    ]


def test_embeddings_of_another_length_are_left_out(tmp_path: Any) -> None:
    """After a change of the backbone, the embeddings of most waiting photos count; the others still come."""
    store = Store.open(tmp_path / "dataset")
    store.upsert(
        [embedded(1, [1.0]), *(embedded(n, [float(n), 1.0]) for n in (2, 3, 4)), embedded(5, [2.0, 1.0, 0.0])]
    )
    store.label([Label(photo_id=f"{5:032x}", label="cat", by="ann", at_ms=1)])
    assert sorted(number for number, _ in reviewed(store, 9)) == [1, 2, 3, 4]


def test_no_device_and_no_class_takes_more_than_twice_its_share() -> None:
    """A device or a class takes at most twice its equal share of the list, unless nothing else is left."""
    loud = [unlabelled(n, device="pi-1", entropy=0.9) for n in range(50)]
    others = [unlabelled(100 + n, device=f"pi-{2 + n % 3}", entropy=0.1) for n in range(6)]
    chosen = most_informative([*loud, *others], 8)
    assert Counter(photo.device for photo in chosen)["pi-1"] == 4
    assert len(most_informative([*loud, *others[:1]], 8)) == 8
    rare = [unlabelled(200 + n, edge_label=f"class {n}", entropy=0.1) for n in range(3)]
    assert sum(photo.edge_label == "cat" for photo in most_informative([*loud, *rare], 4)) == 2


def test_a_pool_represents_every_device() -> None:
    """A device with few photos is in the pool with all of them; weights sum to the number of photos."""
    photos = [unlabelled(n, device="pi-1") for n in range(1000)]
    photos += [unlabelled(2000 + n, device="pi-2") for n in range(7)]
    weights = pool_weights(photos, 100)
    assert len(weights) == 100
    assert sum(weights.values()) == pytest.approx(1007)
    assert [weights[f"{2000 + n:032x}"] for n in range(7)] == [1.0] * 7
    assert pool_weights(photos[::-1], 100) == weights


def test_devices_of_one_name_on_two_nodes_are_two() -> None:
    """Names of devices are unique on one node only: quotas and pool count by node and device."""
    loud = [unlabelled(n, node="edge-1", device="pi-1", entropy=0.9) for n in range(50)]
    quiet = [unlabelled(100 + n, node="edge-2", device="pi-1", entropy=0.1) for n in range(6)]
    third = [unlabelled(200 + n, node="edge-3", device="pi-1", entropy=0.05) for n in range(6)]
    chosen = most_informative([*loud, *quiet, *third], 6)
    assert Counter(photo.node for photo in chosen) == {"edge-1": 4, "edge-2": 2}
    weights = pool_weights([*loud, *quiet], 20)
    assert [weights[photo.photo_id] for photo in quiet] == [1.0] * 6


def test_embeddings_are_aligned_by_node_and_device(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cameras of one name see other light: each is standardised by its own photos."""
    store = Store.open(tmp_path / "dataset")
    store.upsert([embedded(n, [float(n), 1.0], node=f"edge-{n % 2}") for n in range(4)])
    seen: list[Any] = []

    def moments(embeddings: Any, groups: Any) -> Any:
        seen.extend(groups)
        return moments_by_group(embeddings, groups)

    monkeypatch.setattr(review_queue, "moments_by_group", moments)
    reviewed(store, 4)
    assert sorted(Counter(seen).values()) == [2, 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_embeddings_that_are_no_numbers_change_nothing(tmp_path: Any, bad: float) -> None:
    """A photo with such an embedding is asked about as one without, and the others keep their order."""
    store = Store.open(tmp_path / "dataset")
    store.upsert([embedded(n, [float(n % 3), float(n)]) for n in range(1, 9)])
    before = reviewed(store, 8)
    store.upsert([embedded(20, [bad, 1.0], confidence=0.9), embedded(21, [1.0, bad])])
    store.label([Label(photo_id=f"{21:032x}", label="cat", by="ann", at_ms=1)])
    assert reviewed(store, 8) == before
    assert reviewed(store, 9)[8] == (20, "uncertainty")


def teach(store: Store, label: str, *numbers: int) -> None:
    store.label(
        [
            Label(photo_id=f"{n:032x}", label=label, by="teacher/1", at_ms=1, annotator="teacher")
            for n in numbers
        ]
    )


def test_photos_that_two_models_agree_on_come_last(tmp_path: Any) -> None:
    """Photos of lane auto on which teacher and edge agree are not covered, however many they are."""
    store = Store.open(tmp_path / "dataset")
    store.upsert([embedded(n, [9.0, n / 100], lane="auto", confidence=0.95) for n in range(1, 30)])
    store.upsert([embedded(100 + n, [-9.0, n / 100], confidence=0.9) for n in range(2)])
    teach(store, "cat", *(n for n in range(1, 30) if n != 7))
    teach(store, "dog", 7)
    numbers, reasons = zip(*reviewed(store, 4), strict=True)
    assert set(numbers[:3]) == {7, 100, 101}
    assert reasons[3] == "uncertainty"


def test_photos_that_one_model_is_sure_of_are_covered(tmp_path: Any) -> None:
    """Without a teacher's answer the confident photos have their share: they are most of what edges see."""
    store = Store.open(tmp_path / "dataset")
    sure, unsure = [9.0, 0.0, 0.0], [0.0, 9.0, 0.0]
    store.upsert([embedded(n, sure, lane="auto", confidence=0.95) for n in range(1, 30)])
    store.upsert([embedded(100 + n, unsure, confidence=0.6) for n in range(10)])
    (first, reason), (second, _) = reviewed(store, 2)
    assert (first < 100, reason) == (True, "coverage")
    assert second >= 100
