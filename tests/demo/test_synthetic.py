import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from demo.synthetic import CLASSES, LOOKS, SPLITS, draw, draw_collection, seed_of


def pixels(image: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(image)) as picture:
        return np.asarray(picture.convert("RGB"), np.float64)


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("label", CLASSES)
def test_every_look_shows_both_classes(label: str, look: str):
    """Each look gives a JPEG of its size for both classes, and not a blank one."""
    image = draw(label, 7, LOOKS[look])
    with Image.open(io.BytesIO(image)) as picture:
        assert picture.format == "JPEG"
        assert picture.size == (LOOKS[look].width_px, LOOKS[look].height_px)
    assert pixels(image).std() > 10


@pytest.mark.parametrize("label", CLASSES)
def test_drawing_is_deterministic(label: str):
    """The same class, seed and look give the same bytes; another seed gives different ones."""
    assert draw(label, 3) == draw(label, 3)
    assert draw(label, 3) != draw(label, 4)


def test_the_classes_do_not_share_scenes():
    """A cat and a dog with the same seed have different backgrounds, which do not reveal the class."""
    cat, dog = (pixels(draw(label, 5)) for label in CLASSES)
    corners = [
        np.abs(cat - dog)[rows, columns].mean()
        for rows in (slice(40), slice(-40, None))
        for columns in (slice(40), slice(-40, None))
    ]
    assert max(corners) > 15


def test_looks_differ_in_light():
    """Photos at dusk are darker than in daylight on average."""

    def brightness(look: str) -> float:
        return float(np.mean([pixels(draw("cat", seed, LOOKS[look])).mean() for seed in range(8)]))

    assert brightness("dusk") < 0.9 * brightness("daylight")


@given(
    first=st.tuples(st.sampled_from(SPLITS), st.integers(0, 1000), st.integers(0, 2**32 - 1)),
    second=st.tuples(st.sampled_from(SPLITS), st.integers(0, 1000), st.integers(0, 2**32 - 1)),
)
def test_drawing_seeds_are_unique(first: tuple[str, int, int], second: tuple[str, int, int]):
    """Different splits, seeds or numbers give different drawing seeds."""
    assert (seed_of(*first) == seed_of(*second)) == (first == second)


@pytest.mark.parametrize("wrong", [("test", 0, 0), ("gold", -1, 0), ("gold", 0, -1), ("gold", 0, 2**32)])
def test_a_seed_out_of_range_is_an_error(wrong: tuple[str, int, int]):
    """A number outside the range of a split is an error and not a photo of another split."""
    with pytest.raises(ValueError, match="expected one of train, stream, gold, camera"):
        seed_of(*wrong)


def test_an_unknown_class_is_an_error():
    """The error lists the classes."""
    with pytest.raises(ValueError, match="expected a class of cat, dog, got 'fox'"):
        draw("fox", 0)


def test_a_collection_has_a_folder_per_split_and_class(tmp_path: Path):
    """Classes have equal numbers of photos, the looks alternate, and all contents are distinct."""
    looks = list(LOOKS.values())
    drawing = draw_collection(tmp_path, counts={"train": 8, "gold": 4}, looks=looks, seed=1)
    first = next(drawing)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [first]
    files = [first, *drawing]
    assert sorted(str(file.relative_to(tmp_path).parent) for file in files) == (
        ["gold/cat"] * 2 + ["gold/dog"] * 2 + ["train/cat"] * 4 + ["train/dog"] * 4
    )
    assert len({file.read_bytes() for file in files}) == len(files)
    widths = {pixels(file.read_bytes()).shape[1] for file in files if file.parent.name == "cat"}
    assert widths == {look.width_px for look in looks}


def test_a_collection_depends_on_its_seed(tmp_path: Path):
    """The same seed writes the same files, another seed only different ones."""
    contents = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        drawn = list(draw_collection(tmp_path / folder, counts={"stream": 4}, seed=seed))
        contents.append({path.read_bytes() for path in drawn})
    assert contents[0] == contents[1]
    assert not contents[0] & contents[2]
