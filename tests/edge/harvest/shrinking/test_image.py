"""Rules of edge/harvest/shrinking/image.py: a sample has the size of a training photo, in any shape."""

import pytest

from cloud.dataset.image_check import check_whole
from edge.harvest.shrinking.image import shrink
from schemas.image import MAX_SAMPLE_PIXELS, ImageLimits
from tests.pictures.odd import encoded, scene


@pytest.mark.parametrize("size", [(20_000, 300), (300, 20_000), (19_000, 420), (12_000, 1300)])
def test_the_collector_takes_a_panorama(size):
    """A long photo whose short side is below the training size is scaled down by its pixels."""
    shrunk = shrink(encoded(scene(size, "L"), quality=30))
    facts = check_whole(shrunk.image, ImageLimits.for_pixels(MAX_SAMPLE_PIXELS)).facts
    assert (facts.width, facts.height) == (shrunk.width, shrunk.height)
    assert (shrunk.width > shrunk.height) == (size[0] > size[1])
    assert shrunk.width / shrunk.height == pytest.approx(size[0] / size[1], rel=0.01)
