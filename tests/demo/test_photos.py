from collections import Counter
from pathlib import Path

import pytest

from demo.photos import DRAWN, SPLITS, collect, draw
from schemas.errors import PermanentError


def folder(root: Path, **counts: int) -> Path:
    """Create class folders of files with distinct content, not necessarily images."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / name / f"{number}.jpg").write_bytes(f"{root.name} {name} {number}".encode())
    return root


def split_folder(root: Path, **counts: int) -> Path:
    """Create the three splits, each with that many photos per class."""
    for split in SPLITS:
        folder(root / split, **(counts or {"cat": 12, "dog": 12}))
    return root


def contents(directory: Path) -> Counter[bytes]:
    """Count the contents below a folder."""
    return Counter(path.read_bytes() for path in directory.rglob("*.*"))


def test_a_flat_folder_is_divided(tmp_path: Path):
    """Five photos per class are labelled, a third of the others is gold, and no photo is in two splits."""
    chosen = collect(folder(tmp_path / "pets", cat=20, dog=35), tmp_path / "out", seed=0)
    assert chosen.counts == {"train": 10, "gold": 15, "stream": 30}
    parts = [contents(part) for part in (chosen.labelled, chosen.gold, chosen.stream)]
    assert sum(parts, Counter()) == contents(tmp_path / "pets")
    assert sorted(path.name for path in chosen.stream.iterdir()) == ["cat", "dog"]


def test_a_large_folder_is_limited(tmp_path: Path):
    """At most 400 photos of a folder without splits are gold, and 800 stream."""
    chosen = collect(folder(tmp_path / "pets", cat=700, dog=700), tmp_path / "out", seed=0)
    assert chosen.counts == {"train": 10, "gold": 400, "stream": 800}


def test_existing_splits_are_used(tmp_path: Path):
    """Five photos per class of train/ are labelled; all of stream/ and gold/ are used."""
    chosen = collect(split_folder(tmp_path / "pets"), tmp_path / "out", seed=0)
    assert chosen.counts == {"train": 10, "gold": 24, "stream": 24}
    assert contents(chosen.gold) == contents(tmp_path / "pets" / "gold")
    assert contents(chosen.stream) == contents(tmp_path / "pets" / "stream")


def test_the_choice_depends_on_the_seed(tmp_path: Path):
    """The same seed selects the same labelled photos, another seed different ones."""
    source = folder(tmp_path / "pets", cat=40, dog=40)
    labelled = [contents(collect(source, tmp_path / f"{n}", seed=n // 2).labelled) for n in (0, 1, 2)]
    assert labelled[0] == labelled[1]
    assert labelled[0] != labelled[2]


@pytest.mark.parametrize("names", [("train", "test"), ("TRAIN", "Validation"), ("training_set", "test_set")])
def test_train_and_test_are_the_whole_collection(names: tuple[str, str], tmp_path: Path):
    """The cameras send the training photos that are not labelled; the others evaluate, in each case."""
    source = tmp_path / "pets"
    folder(source / names[0], CAT=30, DOG=20)
    folder(source / names[1], CAT=8, DOG=9)
    chosen = collect(source, tmp_path / "out", seed=0)
    assert chosen.counts == {"train": 10, "gold": 17, "stream": 40}
    parts = [contents(part) for part in (chosen.labelled, chosen.gold, chosen.stream)]
    assert sum(parts, Counter()) == contents(source)


def test_a_large_training_set_is_limited(tmp_path: Path):
    """As of a folder without splits, at most 400 photos are gold, and 800 stream."""
    source = tmp_path / "pets"
    folder(source / "train", cat=420, dog=420)
    folder(source / "test", cat=250, dog=250)
    assert collect(source, tmp_path / "out", seed=0).counts == {"train": 10, "gold": 400, "stream": 800}


def test_a_rare_class_is_left_out(tmp_path: Path):
    """With two other classes, one with too few photos does not end the run, and is named."""
    chosen = collect(folder(tmp_path / "meters", one=20, two=24, nine=19), tmp_path / "out", seed=0)
    assert sorted(path.name for path in chosen.stream.iterdir()) == ["one", "two"]
    assert chosen.left_out == {"nine": 19}


def test_a_duplicate_stays_in_gold(tmp_path: Path):
    """A gold photo that is also in the stream is left out of the stream and counted."""
    source = split_folder(tmp_path / "pets")
    (source / "stream" / "cat" / "again.jpg").write_bytes((source / "gold" / "cat" / "3.jpg").read_bytes())
    chosen = collect(source, tmp_path / "out", seed=0)
    assert chosen.duplicates == 1
    assert not contents(chosen.gold) & contents(chosen.stream)
    assert chosen.counts["gold"] == 24


def test_nested_folders_belong_to_the_class_above(tmp_path: Path):
    """Photos of nested folders belong to the class, and equal file names do not collide."""
    source = folder(tmp_path / "pets", cat=10, dog=20)
    for nested in ("a", "b"):
        folder(source / "cat" / nested, deep=5)
    chosen = collect(source, tmp_path / "out", seed=0)
    assert chosen.counts == {"train": 10, "gold": 10, "stream": 20}


def manifest(root: Path, *labels: str, devices: int = 3, each: int = 24) -> Path:
    """Create folders named by device, and a manifest with the label of each photo."""
    lines = ["path,label,device"]
    for number in range(len(labels) * each):
        device, label = f"meter-{number % devices}", labels[number % len(labels)]
        (root / device).mkdir(parents=True, exist_ok=True)
        (root / device / f"{number}.jpg").write_bytes(f"{root.name} {number}".encode())
        lines.append(f"{device}/{number}.jpg,{label},{device}")
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    return root


def test_a_manifest_names_the_classes(tmp_path: Path):
    """Where folders are devices, the manifest has the classes; no photo is in two splits."""
    chosen = collect(manifest(tmp_path / "meters", "0", "1", "2"), tmp_path / "out", seed=0)
    assert sorted(path.name for path in chosen.stream.iterdir()) == ["0", "1", "2"]
    assert chosen.counts == {"train": 15, "gold": 18, "stream": 39}
    parts = [contents(part) for part in (chosen.labelled, chosen.gold, chosen.stream)]
    assert max(sum(parts, Counter()).values()) == 1


@pytest.mark.parametrize("label", ["../x", ".", "a/b"])
def test_a_label_that_is_no_folder_name_is_refused(label: str, tmp_path: Path):
    """No link is created outside of the run's folder."""
    with pytest.raises(PermanentError, match="cannot be the name of a folder"):
        collect(manifest(tmp_path / "meters", "0", label), tmp_path / "out", seed=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda at: at, "there is no folder"),
        (
            lambda at: folder(at, cat=30),
            "has 1 class folders, at least 2 are needed; use one folder per class",
        ),
        (lambda at: manifest(at, "0"), "lists files of 1 classes, at least 2 are needed"),
        (lambda at: manifest(at, "0", "1", each=19), "class '0' has 19 photos, at least 20 are needed"),
        (lambda at: folder(at, cat=30, dog=19), "class 'dog' has 19 photos, at least 20 are needed"),
        (lambda at: folder(at / "train", cat=9).parent, "has only train/; use one folder per class"),
        (
            lambda at: split_folder(at, cat=12, dog=9),
            "class 'dog' has 9 photos in stream/, at least 10 are needed",
        ),
        (
            lambda at: folder(split_folder(at) / "gold", fox=9).parent,
            "gold: expected those of train/: cat, dog, got cat, dog, fox",
        ),
    ],
)
def test_an_unsuitable_folder_is_one_sentence(make, message: str, tmp_path: Path):
    """A wrong layout, different classes in a split and too few photos are errors with a reason."""
    with pytest.raises(PermanentError) as refused:
        collect(make(tmp_path / "pets"), tmp_path / "out", seed=0)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unreadable_photo_is_an_error(tmp_path: Path):
    """The error of a broken link has its path."""
    source = folder(tmp_path / "pets", cat=30, dog=30)
    (source / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(PermanentError, match=r"cannot read .*gone\.jpg"):
        collect(source, tmp_path / "out", seed=0)


def test_synthetic_photos_are_a_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each step of the iteration draws one file, in the splits that a run needs."""
    assert DRAWN.keys() == set(SPLITS)
    assert DRAWN["train"] == 10
    fewer = DRAWN | {"gold": 24, "stream": 24}  # a photo takes 15 ms to draw
    monkeypatch.setattr("demo.photos.DRAWN", fewer)
    drawing = draw(tmp_path / "drawn", seed=3)
    first = next(drawing)
    assert first.parent.parent == tmp_path / "drawn" / "train"
    assert sum(1 for _ in drawing) == sum(fewer.values()) - 1
    assert collect(tmp_path / "drawn", tmp_path / "out", seed=3).counts == fewer
