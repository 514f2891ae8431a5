"""All decoders agree with the check on odd pictures and on mutations of them; see `make fuzz-pictures`."""

import io

import pytest
from PIL import Image

from schemas.image import inspect_image
from tests.pictures.comparison import compare
from tests.pictures.mutations import JPEG, PNG, mutated
from tests.pictures.odd import odd_pictures

MUTATIONS = 600


@pytest.mark.parametrize("name", odd_pictures())
def test_an_odd_picture_is_accepted(name):
    """Every colour, depth, scan, orientation and kind of alpha is accepted as it is."""
    assert compare(odd_pictures()[name]) == "accepted"


@pytest.mark.parametrize("seed", range(3))
def test_g4_decoders_agree_on_mutations(seed):
    """Accepted means decodable, with the size that was checked; opened by libjpeg means accepted."""
    outcomes = set()
    kinds = set()
    for (name, image), _ in zip(mutated(seed), range(MUTATIONS // 3), strict=False):
        kinds.update(name.split()[1:])
        try:
            outcomes.add(compare(image))
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}: {image.hex()}") from error
    assert outcomes >= {"accepted", "damaged", "refused"}
    assert len(kinds) > len({mutation.__name__ for mutation in (*JPEG, *PNG)}) * 0.9


def test_the_guard_of_pillow_stays_on():
    """No module of ours turns off Pillow's own limit of pixels."""
    assert Image.MAX_IMAGE_PIXELS is not None
    assert inspect_image(odd_pictures()["png-1"]).pixels
    with Image.open(io.BytesIO(odd_pictures()["png-1"])) as picture:
        assert picture.size == (40, 24)
