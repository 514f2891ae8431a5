from collections import Counter
from pathlib import Path

import pytest

from demo.photos import DRAWN, SPLITS, collect, draw
from schemas.errors import PermanentError


def folder(root: Path, **counts: int) -> Path:
    """Make class folders of files with different content; what is in them is not looked at."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / name / f"{number}.jpg").write_bytes(f"{root.name} {name} {number}".encode())
    return root


def split_folder(root: Path, **counts: int) -> Path:
    """Make the three splits, each with so many photos of each class."""
    for split in SPLITS:
        folder(root / split, **(counts or {"cat": 12, "dog": 12}))
    return root


def contents(directory: Path) -> Counter[bytes]:
    """Count the contents below a folder."""
    return Counter(path.read_bytes() for path in directory.rglob("*.*"))


def test_a_flat_folder_is_divided(tmp_path: Path):
    """Five of each class are labelled, a third of the others is gold, and no photo is in two splits."""
    chosen = collect(folder(tmp_path / "pets", cat=20, dog=35), tmp_path / "out", seed=0)
    assert chosen.counts == {"train": 10, "gold": 15, "stream": 30}
    parts = [contents(part) for part in (chosen.labelled, chosen.gold, chosen.stream)]
    assert sum(parts, Counter()) == contents(tmp_path / "pets")
    assert sorted(path.name for path in chosen.stream.iterdir()) == ["cat", "dog"]


def test_a_large_folder_is_not_taken_whole(tmp_path: Path):
    """Of a folder without splits at most 400 photos are gold and 800 stream, so that a run ends."""
    chosen = collect(folder(tmp_path / "pets", cat=700, dog=700), tmp_path / "out", seed=0)
    assert chosen.counts == {"train": 10, "gold": 400, "stream": 800}


def test_splits_are_taken_as_they_are(tmp_path: Path):
    """Of train/ five of each class are labelled; all of stream/ and gold/ are used."""
    chosen = collect(split_folder(tmp_path / "pets"), tmp_path / "out", seed=0)
    assert chosen.counts == {"train": 10, "gold": 24, "stream": 24}
    assert contents(chosen.gold) == contents(tmp_path / "pets" / "gold")
    assert contents(chosen.stream) == contents(tmp_path / "pets" / "stream")


def test_the_choice_follows_the_seed(tmp_path: Path):
    """One seed labels the same photos again, another one others."""
    source = folder(tmp_path / "pets", cat=40, dog=40)
    labelled = [contents(collect(source, tmp_path / f"{n}", seed=n // 2).labelled) for n in (0, 1, 2)]
    assert labelled[0] == labelled[1]
    assert labelled[0] != labelled[2]


def test_a_content_is_taken_once_and_rather_judged_on(tmp_path: Path):
    """A gold photo that is also in the stream would be learnt, so it is left out there, and said."""
    source = split_folder(tmp_path / "pets")
    (source / "stream" / "cat" / "again.jpg").write_bytes((source / "gold" / "cat" / "3.jpg").read_bytes())
    chosen = collect(source, tmp_path / "out", seed=0)
    assert chosen.duplicates == 1
    assert not contents(chosen.gold) & contents(chosen.stream)
    assert chosen.counts["gold"] == 24


def test_photos_in_folders_of_a_class_folder_are_its_photos(tmp_path: Path):
    """Nested folders belong to the class above them, and equal names in them do not meet."""
    source = folder(tmp_path / "pets", cat=10, dog=20)
    for nested in ("a", "b"):
        folder(source / "cat" / nested, deep=5)
    chosen = collect(source, tmp_path / "out", seed=0)
    assert chosen.counts == {"train": 10, "gold": 10, "stream": 20}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda at: at, "expected a folder, got none there"),
        (
            lambda at: folder(at, cat=30),
            "expected one folder per class, or train/ stream/ gold/ above them, got 1",
        ),
        (lambda at: folder(at, cat=30, dog=19), "photos of dog: expected at least 20, got 19"),
        (lambda at: folder(at / "train", cat=9).parent, "got train/"),
        (lambda at: split_folder(at, cat=12, dog=9), "expected at least 10 of dog for stream, got 9"),
        (
            lambda at: folder(split_folder(at) / "gold", fox=9).parent,
            "expected in gold/ the classes of train/: cat, dog, got cat, dog, fox",
        ),
    ],
)
def test_what_is_no_collection_is_refused_in_a_sentence(make, says: str, tmp_path: Path):
    """A wrong folder, a class missing in a split, and too few photos each say what was expected."""
    with pytest.raises(PermanentError) as refused:
        collect(make(tmp_path / "pets"), tmp_path / "out", seed=0)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_photo_that_cannot_be_read_is_named(tmp_path: Path):
    """A broken link among the photos is an error with its path."""
    source = folder(tmp_path / "pets", cat=30, dog=30)
    (source / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(PermanentError, match=r"gone\.jpg: expected a readable file"):
        collect(source, tmp_path / "out", seed=0)


def test_drawn_photos_are_a_collection(tmp_path: Path):
    """Drawing gives one file with each step, in the splits that a run needs."""
    drawing = draw(tmp_path / "drawn", seed=3)
    first = next(drawing)
    assert first.parent.parent == tmp_path / "drawn" / "train"
    assert sum(1 for _ in drawing) == sum(DRAWN.values()) - 1
    assert collect(tmp_path / "drawn", tmp_path / "out", seed=3).counts == DRAWN
