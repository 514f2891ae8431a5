"""Rules of cloud/retraining/drift_alarm.py: which photos are compared, and who is named."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cloud.dataset.store import Row, Store
from cloud.retraining import drift_alarm
from cloud.retraining.drift_alarm import FLEET, find_alarm
from cloud.retraining.triggers import Triggers

RULES = Triggers(drift_photos=30)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "dataset")


def sample(number: int, embedding: NDArray[np.float64], device: str, **fields: object) -> Row:
    """A sample that is the `number`-th to arrive."""
    facts: dict[str, object] = {
        "photo_id": f"{number:032x}", "image": b"x", "width": 1, "height": 1, "received_at_ms": number,
        "node": "edge-1", "device": device, "lane": "hard", "edge_label": "cat", "confidence": 0.9,
        "model_version": 1, "embedding": embedding.astype("<f4").tobytes(),
    }  # fmt: skip
    return Row(**(facts | fields))  # type: ignore[arg-type]  # tests pass fields by name


def harvest(
    store: Store,
    start: int,
    count: int,
    *,
    shift: float = 0.0,
    device: str = "pi-1",
    node: str = "edge-1",
    lane: str = "hard",
    version: int = 1,
    length: int = 8,
) -> None:
    """Store samples that arrive one after the other, with embeddings around `shift`."""
    draw = np.random.default_rng(start)
    store.upsert(
        [
            sample(n, draw.normal(size=length) + shift, device, node=node, lane=lane, model_version=version)
            for n in range(start, start + count)
        ]
    )


def test_photos_that_look_different_raise_an_alarm(store: Store) -> None:
    """The alarm has the fleet, the number of photos and the end of the reference; equal photos raise none."""
    harvest(store, 0, 100)
    trained_at = store.version
    harvest(store, 100, 30)
    assert find_alarm(store, 1, trained_at, RULES) is None
    harvest(store, 130, 30, shift=2.0)
    alarm = find_alarm(store, 1, trained_at, RULES)
    assert alarm is not None
    assert (alarm.scopes, alarm.photos, alarm.since_ms) == ((FLEET,), 30, 99)
    assert alarm.p_value < 0.001
    assert alarm.words.startswith("new photos of the fleet look different from earlier ones (p = ")


def test_an_unfinished_block_is_not_tested(store: Store) -> None:
    """A block is tested when it is full, and once: further photos wait for the next block."""
    harvest(store, 0, 100)
    trained_at = store.version
    harvest(store, 100, 29, shift=2.0)
    assert find_alarm(store, 1, trained_at, RULES) is None
    harvest(store, 129, 1, shift=2.0)
    first = find_alarm(store, 1, trained_at, RULES)
    harvest(store, 130, 29)
    assert first is not None
    assert find_alarm(store, 1, trained_at, RULES) == first
    harvest(store, 159, 1)
    assert find_alarm(store, 1, trained_at, RULES) is None


@pytest.mark.parametrize(
    ("field", "names", "drifted"),
    [
        ("device", ("pi-1", "pi-2", "pi-3"), "edge-1/pi-2"),
        ("node", ("edge-1", "edge-2", "edge-3"), "edge-2/pi-1"),
    ],
)
def test_the_device_that_drifted_is_named(
    store: Store, field: str, names: tuple[str, ...], drifted: str
) -> None:
    """A drift of one of three is found at that one, also where all have one name, on a node each."""
    for number, name in enumerate(names):
        harvest(store, 100 * number, 60, **{field: name})
    trained_at = store.version
    for number, name in enumerate(names):
        harvest(store, 1000 + 100 * number, 60, shift=1.5 * (name == names[1]), **{field: name})
    alarm = find_alarm(store, 1, trained_at, RULES)
    assert alarm is not None
    assert set(alarm.scopes) - {FLEET} == {drifted}


def test_a_new_device_is_compared_with_the_others(store: Store) -> None:
    """A camera without earlier photos raises an alarm if it differs from the fleet, otherwise none."""
    harvest(store, 0, 100)
    trained_at = store.version
    harvest(store, 200, 60)
    harvest(store, 300, 30, device="pi-2")
    assert find_alarm(store, 1, trained_at, RULES) is None
    harvest(store, 400, 30, device="pi-3", shift=3.0)
    alarm = find_alarm(store, 1, trained_at, RULES)
    assert alarm is not None
    assert "edge-1/pi-3" in alarm.scopes


def test_of_many_samples_the_newest_are_compared(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """More samples than are read on either side: the reference and the tested block are the newest ones."""
    monkeypatch.setattr(drift_alarm, "_MAX_PHOTOS", 90)
    harvest(store, 0, 150, shift=3.0)
    harvest(store, 150, 90)
    trained_at = store.version
    harvest(store, 300, 125)
    assert find_alarm(store, 1, trained_at, RULES) is None, "the reference is of the newest photos"
    harvest(store, 500, 25, shift=3.0)
    first = find_alarm(store, 1, trained_at, RULES)
    assert first is not None, "the block of the newest photos was tested"
    assert first.since_ms == 239
    harvest(store, 600, 29)
    assert find_alarm(store, 1, trained_at, RULES) == first, (
        "blocks are the same while older photos are left out"
    )


def test_audits_are_preferred_to_other_samples(store: Store) -> None:
    """With enough audits a change of the other lanes, as by another harvest policy, is not drift."""
    harvest(store, 0, 60)
    harvest(store, 100, 40, lane="audit")
    trained_at = store.version
    harvest(store, 200, 60, shift=3.0)
    assert find_alarm(store, 1, trained_at, RULES) is not None
    harvest(store, 300, 30, lane="audit")
    assert find_alarm(store, 1, trained_at, RULES) is None


def test_a_version_that_no_training_saw_starts_its_own_reference(store: Store) -> None:
    """The first samples of a version are its reference; those of another version are not compared with."""
    harvest(store, 0, 60, shift=5.0)
    trained_at = store.version
    harvest(store, 100, 150, version=2)
    assert find_alarm(store, 2, trained_at, RULES) is None
    harvest(store, 300, 30, version=2, shift=2.0)
    assert find_alarm(store, 2, trained_at, RULES) is not None
    assert find_alarm(store, 3, None, RULES) is None


@pytest.mark.parametrize(("shift", "length"), [(np.nan, 8), (np.inf, 8), (1e30, 8), (0.0, 3)])
def test_embeddings_that_cannot_be_compared_raise_no_alarm(store: Store, shift: float, length: int) -> None:
    """Embeddings with a NaN, huge numbers or another length are left out, be it one or a whole block."""
    harvest(store, 0, 100)
    harvest(store, 100, 1, shift=shift, length=length)
    trained_at = store.version
    harvest(store, 200, 29)
    harvest(store, 300, 1, shift=shift, length=length)
    assert find_alarm(store, 1, trained_at, RULES) is None
    harvest(store, 400, 30, shift=shift, length=length)
    assert find_alarm(store, 1, trained_at, RULES) is None
    harvest(store, 500, 30, shift=3.0)
    assert find_alarm(store, 1, trained_at, RULES) is not None


def many(store: Store, start: int, looks: dict[str, float], each: int, *, nights: bool = False) -> None:
    """Store photos of several devices by turns, `each` of each one; all look different from each other."""
    draw = np.random.default_rng(start)
    order = [(device, shift) for _ in range(each) for device, shift in looks.items()]
    day = [3.0 * (nights and number // 45 % 2) for number in range(start, start + len(order))]
    store.upsert(
        [
            sample(number, draw.normal(size=8) + shift + dark, device)
            for number, ((device, shift), dark) in enumerate(zip(order, day, strict=True), start)
        ]
    )


def test_devices_that_always_differed_are_no_drift(store: Store) -> None:
    """Of many devices with few earlier photos each, no new block is compared with the others'."""
    looks = {f"pi-{number}": 0.5 * number for number in range(25)}
    many(store, 0, looks, 4)
    trained_at = store.version
    many(store, 1000, looks, 30)
    assert find_alarm(store, 1, trained_at, RULES) is None


def test_a_device_that_sends_more_is_no_drift_of_the_fleet(store: Store) -> None:
    """The newest photos are all of one device, which looks different from the others as it always did."""
    many(store, 0, {"pi-1": 0.0, "pi-2": 4.0}, 60)
    trained_at = store.version
    many(store, 1000, {"pi-1": 0.0, "pi-2": 4.0}, 10)
    many(store, 2000, {"pi-2": 4.0}, 40)
    assert find_alarm(store, 1, trained_at, RULES) is None
    many(store, 3000, {"pi-2": 5.5}, 40)
    alarm = find_alarm(store, 1, trained_at, RULES)
    assert alarm is not None
    assert set(alarm.scopes) == {FLEET, "edge-1/pi-2"}


def test_nights_are_no_drift(store: Store) -> None:
    """A block of nights alone differs from days and nights, but no more than earlier nights did."""
    many(store, 0, {"pi-1": 0.0}, 360, nights=True)
    trained_at = store.version
    many(store, 405, {"pi-1": 0.0}, 45, nights=True)
    assert find_alarm(store, 1, trained_at, RULES) is None
    many(store, 500, {"pi-1": 6.0}, 30)
    assert find_alarm(store, 1, trained_at, RULES) is not None


def test_each_of_many_devices_gets_its_turn(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of a device that sends little is tested when it is full, also among busier devices."""
    monkeypatch.setattr(drift_alarm, "MAX_DEVICES", 3)
    looks = {f"pi-{number}": 0.0 for number in range(5)}
    many(store, 0, looks, 20)
    trained_at = store.version
    many(store, 1000, {name: shift for name, shift in looks.items() if name != "pi-0"}, 60)
    many(store, 5000, {"pi-0": 3.0}, 30)
    alarm = find_alarm(store, 1, trained_at, RULES)
    assert alarm is not None
    assert "edge-1/pi-0" in alarm.scopes


def test_a_drift_is_found_at_every_level_that_may_be_set(store: Store) -> None:
    """With many devices and a strict level, the smallest p-value still is significant among all tests."""
    looks = {f"pi-{number}": 0.0 for number in range(12)}
    many(store, 0, looks, 20)
    trained_at = store.version
    many(store, 1000, looks, 30)
    many(store, 5000, {"pi-0": 3.0}, 30)
    strict = Triggers(drift_photos=30, drift_level=0.0005)
    alarm = find_alarm(store, 1, trained_at, strict)
    assert alarm is not None
    assert "edge-1/pi-0" in alarm.scopes


def test_a_block_that_was_tested_is_not_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its p-value is remembered, so that many devices cost as much as their new blocks; older ones go."""
    many(store, 0, {"pi-1": 0.0, "pi-2": 1.0}, 40)
    trained_at = store.version
    many(store, 1000, {"pi-1": 0.0, "pi-2": 4.0}, 30)
    tested: drift_alarm.Tested = {}
    first = find_alarm(store, 1, trained_at, RULES, tested)
    assert first is not None
    assert "edge-1/pi-2" in first.scopes
    assert {scope for scope, *_ in tested} == {FLEET, "edge-1/pi-1", "edge-1/pi-2"}
    with monkeypatch.context() as patched:
        patched.setattr(Store, "find", None)
        assert find_alarm(store, 1, trained_at, RULES, tested) == first
    many(store, 2000, {"pi-1": 0.0}, 30)
    find_alarm(store, 1, trained_at, RULES, tested)
    assert len(tested) == 3
