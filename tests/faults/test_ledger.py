"""The ledger finds each kind of loss and duplication."""

from dataclasses import replace

import pytest

from schemas.messages import Result
from tests.faults.acceptance import Acceptance, digest
from tests.faults.components import Line
from tests.faults.databases import Contents, Row
from tests.faults.ledger import BROKEN, compare

KNOWN = {b"a cat": "cat", b"a dog": "dog"}


def result(number: int, label: str = "cat", **changes: object) -> Result:
    facts: dict[str, object] = {"status": "ok", "harvest": "auto", "label": label, "device": "device-1"}
    return Result(photo_id=f"{number:032x}", node="edge-1", answered_at_ms=1, **(facts | changes))  # type: ignore[arg-type]  # fields of Result


RESULTS = (result(1), result(2, "dog"), result(3, None, status="rejected", harvest=None))
DEVICE = Contents(accepted=3, answers=RESULTS)
EDGE = Contents(accepted=2, answers=RESULTS)
STORED = [Row(RESULTS[0].photo_id, "cat", b"a cat"), Row(RESULTS[1].photo_id, "dog", b"a dog")]
PRINTED = [
    Line(RESULTS[0].photo_id, "ok", "cat", "cat"),
    Line(RESULTS[1].photo_id, "ok", "dog"),
    Line(RESULTS[2].photo_id, "rejected", None, BROKEN),
]
SOUND = {"devices": [DEVICE], "edge": EDGE, "stored": STORED, "printed": PRINTED, "known": KNOWN}


def test_a_correct_run_has_no_verdict():
    """One answer per photo and one row per sample satisfy the guarantees."""
    ledger = compare(**SOUND)
    assert ledger.verdict == []
    assert (ledger.photos, ledger.answered, ledger.samples, ledger.rows) == (3, 3, 2, 2)


def test_a_sample_whose_answer_was_given_twice_is_a_sample():
    """An edge that was killed before it recorded an answer says at the next one that the sample waits."""
    again = result(4, device="hostile", harvest="already-waiting")
    ledger = compare(
        **SOUND
        | {
            "edge": replace(EDGE, answers=(*RESULTS, again)),
            "stored": [*STORED, Row(again.photo_id, "cat", b"a cat")],
        }
    )
    assert "rows without a sample" not in " ".join(ledger.verdict)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"devices": [replace(DEVICE, accepted=4)]}, "1 photos lost"),
        ({"printed": [*PRINTED, PRINTED[1]]}, "1 photos answered twice"),
        ({"stored": STORED[:1]}, "1 samples lost"),
        ({"stored": [*STORED, STORED[0]]}, "1 samples stored twice"),
        ({"stored": [*STORED, Row("f" * 32, "cat", b"a cat")]}, "1 rows without a sample"),
        ({"stored": [STORED[0], Row(RESULTS[1].photo_id, "dog", b"a cat")]}, "cat was stored as dog"),
        ({"printed": [Line(RESULTS[0].photo_id, "ok", "dog", "cat")]}, "cat was answered dog"),
        ({"printed": [Line(RESULTS[0].photo_id, "ok", "dog", BROKEN)]}, "broken was answered dog"),
        ({"edge": replace(EDGE, answers=(result(1, "dog"), *RESULTS[1:]))}, "recorded different answers"),
        ({"edge": replace(EDGE, answers=RESULTS[:2])}, "recorded different answers"),
        (
            {"edge": replace(EDGE, answers=(*RESULTS, result(4, harvest="already-waiting")))},
            "1 not harvested",
        ),
    ],
)
def test_each_violation_is_in_the_verdict(changes, words):
    """Lost, duplicated, swapped and invented photos and rows are reported."""
    assert any(words in sentence for sentence in compare(**(SOUND | changes)).verdict)


ACCEPTED = Acceptance(
    {one.photo_id: digest(image) for one, image in zip(RESULTS, (b"a cat", b"a dog", b"x"), strict=True)},
    3,
    0,
    0,
    1,
)


def test_acceptance_is_counted_outside_the_product():
    """What the devices accepted is taken from the record outside, not from their own databases."""
    silent = {"devices": [replace(DEVICE, accepted=0)]}
    assert compare(**(SOUND | silent), acceptance=ACCEPTED).verdict == []
    forgetful = {"devices": [Contents()], "edge": Contents(), "stored": [], "printed": []}
    assert "3 photos lost" in " ".join(compare(**(SOUND | forgetful), acceptance=ACCEPTED).verdict)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"pictures": ACCEPTED.pictures | {RESULTS[0].photo_id: "other"}},
            "with the picture of another photo",
        ),
        ({"pictures": ACCEPTED.pictures | {"f" * 32: "lost"}}, "1 photos lost"),
        ({"unsynced": 2}, "2 photos accepted before the disk had them"),
        ({"frames": 9}, "5 frames neither accepted nor refused"),
    ],
)
def test_each_violation_of_an_acceptance_is_in_the_verdict(changes, words):
    """Mixed up pictures, lost photos, unsynced acceptance and vanished frames are reported."""
    verdict = compare(**SOUND, acceptance=replace(ACCEPTED, **changes)).verdict
    assert [sentence for sentence in verdict if words in sentence]


def test_a_run_without_photos_or_samples_proves_nothing():
    """An empty run is not a success."""
    nothing = {"devices": [Contents()], "edge": Contents(), "stored": [], "printed": []}
    assert [sentence.partition(":")[0] for sentence in compare(**(SOUND | nothing)).verdict] == [
        "0 photos accepted",
        "0 samples harvested",
    ]
