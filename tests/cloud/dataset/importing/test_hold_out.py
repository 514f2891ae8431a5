"""Rules of cloud/dataset/importing/hold_out.py: which photos become gold."""

import io
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cloud.dataset.fingerprint import Fingerprint, NearDuplicates, fingerprint
from cloud.dataset.importing.formats.folder import folder_entries
from cloud.dataset.importing.hold_out import Photo, choose_gold, near_groups
from cloud.dataset.importing.import_result import ImportOptions
from cloud.dataset.importing.importer import import_entries
from cloud.dataset.rows.forgotten import forget
from cloud.dataset.store import Row, Store
from cloud.registry.registry import Registry
from cloud.training.photos import read_photos
from schemas.codec import content_id


def seen(number: int) -> Fingerprint:
    """Return the fingerprint of a picture that is near to no other one."""
    random = np.random.default_rng(number)
    return Fingerprint(int(random.integers(0, 2**63)), random.bytes(256))


def photo(number: int, label: str = "cat", *, like: int | None = None, gold: bool | None = None) -> Photo:
    return Photo(content_id(b"%d" % number), label, seen(number if like is None else like), gold)


def picture(seed: int, size: tuple[int, int] = (160, 120), quality: int = 90) -> bytes:
    """Return a picture with large patches; another size or quality shows the same."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=quality)
    return out.getvalue()


@given(cats=st.integers(0, 40), dogs=st.integers(0, 40), share=st.floats(0.05, 0.9))
def test_each_class_gives_its_share(cats: int, dogs: int, share: float) -> None:
    """The share of each class to the nearest photo, but three photos of it are left to train on."""
    photos = [photo(n) for n in range(cats)] + [photo(100 + n, "dog") for n in range(dogs)]
    gold = choose_gold(photos, share)
    counts = Counter(one.label for one in photos if one.photo_id in gold)
    for label, count in (("cat", cats), ("dog", dogs)):
        assert counts[label] == max(0, min(int(share * count + 0.5), count - 3))


def test_the_choice_depends_on_the_photos_alone() -> None:
    """Another order gives the same gold set; more photos do not move a stored one."""
    photos = [photo(n) for n in range(50)]
    gold = choose_gold(photos, 0.2)
    assert choose_gold(photos[::-1], 0.2) == gold
    stored = [Photo(one.photo_id, one.label, one.fingerprint, one.photo_id in gold) for one in photos]
    assert choose_gold(stored, 0.2) == set()
    more = choose_gold([*stored, *(photo(n) for n in range(50, 100))], 0.2)
    assert len(more) == 10
    assert more.isdisjoint(one.photo_id for one in photos)


def test_near_duplicates_are_on_one_side() -> None:
    """A group is held out as a whole or not at all; a twin of a stored photo goes where that is."""
    photos = [photo(n, like=n // 4) for n in range(40)]
    gold = choose_gold(photos, 0.3)
    assert len(gold) == 12
    for group in near_groups(photos):
        assert len({one.photo_id in gold for one in group}) == 1
    twins = [photo(0, gold=True), photo(1, like=0), photo(2, gold=False), photo(3, like=2)]
    rest = [photo(n) for n in range(10, 16)]
    chosen = choose_gold([*twins, *rest], 0.2)
    assert photo(1).photo_id in chosen
    assert photo(3).photo_id not in chosen


def test_a_group_of_two_classes_exceeds_neither_share() -> None:
    """One scene under two labels is held out only if both classes have room for it."""
    mixed = [photo(n, "cat" if n % 2 else "dog", like=0) for n in range(6)]
    photos = [*mixed, *(photo(n, "cat") for n in range(10, 17)), *(photo(n, "dog") for n in range(20, 27))]
    gold = choose_gold(photos, 0.2)
    counts = Counter(one.label for one in photos if one.photo_id in gold)
    assert counts == {"cat": 2, "dog": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty cats and twenty dogs, each in two sizes."""
    for number in range(40):
        path = tmp_path / "in" / ("cat" if number < 20 else "dog")
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{number}.jpg").write_bytes(picture(number))
        (path / f"{number}-small.jpg").write_bytes(picture(number, (80, 60), 70))
    return tmp_path / "in"


def test_an_import_holds_out_and_the_gold_set_is_frozen(folder: Path, tmp_path: Path) -> None:
    """No gold photo has a near-duplicate in training; a second import moves nothing."""
    store = Store.open(tmp_path / "photos.lance")
    options = ImportOptions(hold_out=0.2)
    result = import_entries(store, folder_entries(folder), options)
    assert (result.stored, result.gold) == (80, {"cat": 8, "dog": 8})
    sides: dict[str, set[str]] = {}
    for row in store.scan(["source", "split"]):
        number = str(row["source"]).partition("/")[2].partition(".")[0].partition("-")[0]
        sides.setdefault(number, set()).add(str(row["split"]))
    assert {len(side) for side in sides.values()} == {1}
    before = store.version
    plain = import_entries(store, folder_entries(folder), ImportOptions(keep_split=True))
    assert (plain.duplicate, plain.skipped, store.count("split = 'gold'")) == (80, {}, 16)
    again = import_entries(store, folder_entries(folder), options)
    assert (again.stored, again.duplicate, again.skipped, store.version) == (0, 80, {}, before)


def test_gold_may_still_be_chosen_before_the_first_training(folder: Path, tmp_path: Path) -> None:
    """Photos that no version was trained on become gold by a second import; later they are frozen."""
    store = Store.open(tmp_path / "photos.lance")
    import_entries(store, folder_entries(folder), ImportOptions())
    store.tag("model-1")
    import_entries(store, folder_entries(folder), ImportOptions(hold_out=0.2))
    assert store.count("split = 'gold'") == 0
    other = Store.open(tmp_path / "other.lance")
    import_entries(other, folder_entries(folder), ImportOptions())
    import_entries(other, folder_entries(folder), ImportOptions(hold_out=0.2))
    assert other.count("split = 'gold'") == 16


def test_a_trained_photo_never_becomes_gold(folder: Path, tmp_path: Path) -> None:
    """Neither a forgetting, which removes the tags of trainings, nor a training that made none thaws them."""
    team: Any = SimpleNamespace(chief=True, agree=lambda number: number)  # the real one loads TensorFlow
    for name, train in {
        "tagged": lambda store: store.tag("model-1"),
        "begun": lambda store: read_photos(store, Registry(tmp_path / "models"), None, team),
    }.items():
        store = Store.open(tmp_path / f"{name}.lance")
        import_entries(store, folder_entries(folder), ImportOptions())
        train(store)
        (first,) = store.scan(["photo_id"], limit=1)
        store.change([str(first["photo_id"])], lambda row: forget(row, 1))
        for _ in range(2):
            store.purge()
            store.table.compact()
        assert store.tags() == {}
        import_entries(Store.open(store.table.url), folder_entries(folder), ImportOptions(hold_out=0.2))
        assert store.count("split = 'gold'") == 0


def test_a_stored_photo_keeps_its_side_beside_a_hold_out(folder: Path, tmp_path: Path) -> None:
    """A source that names another side of a stored photo is listed, with and without --hold-out."""
    store = Store.open(tmp_path / "photos.lance")
    import_entries(store, folder_entries(folder), ImportOptions(keep_split=True))
    store.mark_trained()
    (tmp_path / "sorted").mkdir()
    folder.rename(tmp_path / "sorted" / "test")
    (tmp_path / "sorted" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "sorted" / "train" / "cat" / "new.jpg").write_bytes(picture(99))
    for options in (ImportOptions(keep_split=True), ImportOptions(keep_split=True, hold_out=0.2)):
        result = import_entries(store, folder_entries(tmp_path / "sorted"), options)
        assert store.count("split = 'gold'") == 0
        assert len(result.skipped) == 80
        assert all("already stored under split train, not gold" in why for why in result.skipped.values())


def test_a_sample_keeps_its_side(folder: Path, tmp_path: Path) -> None:
    """A harvested photo that nobody labelled may have been trained on by a model's label."""
    store = Store.open(tmp_path / "photos.lance")
    photos = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))]
    facts = {"width": 1, "height": 1, "received_at_ms": 1}
    store.upsert([Row(photo_id=content_id(one), image=one, **facts) for one in photos])
    import_entries(store, folder_entries(folder), ImportOptions(hold_out=0.2))
    assert store.count("split = 'gold'") == 0


def test_fingerprints_tell_scenes_apart() -> None:
    """A scaled and compressed copy is near; another picture, and a flat one of another grey, are not."""
    one = NearDuplicates([fingerprint(picture(1))])
    assert one.find(fingerprint(picture(1, (80, 60), 60))) == 0
    assert one.find(fingerprint(picture(2))) is None

    def flat(grey: int) -> Fingerprint:
        out = io.BytesIO()
        Image.new("L", (64, 48), grey).save(out, "JPEG")
        return fingerprint(out.getvalue())

    assert NearDuplicates([flat(40)]).find(flat(200)) is None
