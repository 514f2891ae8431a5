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
    """Each camera gives a JPEG of its own size of either animal, with something to see on it."""
    image = draw(label, 7, LOOKS[look])
    with Image.open(io.BytesIO(image)) as picture:
        assert picture.format == "JPEG"
        assert picture.size == (LOOKS[look].width_px, LOOKS[look].height_px)
    assert pixels(image).std() > 10


@pytest.mark.parametrize("label", CLASSES)
def test_a_seed_always_draws_the_same(label: str):
    """The same class, seed and look give the same bytes; another seed gives another picture."""
    assert draw(label, 3) == draw(label, 3)
    assert draw(label, 3) != draw(label, 4)


def test_the_classes_share_no_scene():
    """A cat and a dog of one seed stand in different places, so that no background tells the class."""
    cat, dog = (pixels(draw(label, 5)) for label in CLASSES)
    corners = [
        np.abs(cat - dog)[rows, columns].mean()
        for rows in (slice(40), slice(-40, None))
        for columns in (slice(40), slice(-40, None))
    ]
    assert max(corners) > 15


def test_looks_differ_in_light():
    """Dusk is darker than daylight on average, whatever is drawn."""

    def brightness(look: str) -> float:
        return float(np.mean([pixels(draw("cat", seed, LOOKS[look])).mean() for seed in range(8)]))

    assert brightness("dusk") < 0.9 * brightness("daylight")


@given(
    first=st.tuples(st.sampled_from(SPLITS), st.integers(0, 1000), st.integers(0, 2**32 - 1)),
    second=st.tuples(st.sampled_from(SPLITS), st.integers(0, 1000), st.integers(0, 2**32 - 1)),
)
def test_no_two_photos_have_one_seed(first: tuple[str, int, int], second: tuple[str, int, int]):
    """Split, seed and number together decide the drawing, so the splits of all seeds share nothing."""
    assert (seed_of(*first) == seed_of(*second)) == (first == second)


@pytest.mark.parametrize("wrong", [("test", 0, 0), ("gold", -1, 0), ("gold", 0, -1), ("gold", 0, 2**32)])
def test_a_seed_out_of_range_is_refused(wrong: tuple[str, int, int]):
    """What would leave a split's own range of seeds is an error and not another split's photo."""
    with pytest.raises(ValueError, match="expected one of train, stream, gold, camera"):
        seed_of(*wrong)


def test_there_is_no_third_class():
    """The error names the classes that there are."""
    with pytest.raises(ValueError, match="expected a class of cat, dog, got 'fox'"):
        draw("fox", 0)


def test_a_collection_has_its_photos_in_folders_by_split_and_class(tmp_path: Path):
    """Photos are shared evenly by the classes, the looks take turns, and no content comes twice."""
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


def test_a_collection_follows_its_seed(tmp_path: Path):
    """One seed writes the same files again, another one shares none with it."""
    contents = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        drawn = list(draw_collection(tmp_path / folder, counts={"stream": 4}, seed=seed))
        contents.append({path.read_bytes() for path in drawn})
    assert contents[0] == contents[1]
    assert not contents[0] & contents[2]
