"""Embeddings and their cache."""

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud.dataset.example import Example, TrainingError
from cloud.modeling.backbones import EFFICIENTNET_LITE0
from cloud.progress import NoProgress
from cloud.training.embeddings import BATCH_PHOTOS, dimmed, embed, embeddings
from tests.cloud.tiny import TINY

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")


class Counting:
    """Progress that counts the computed photos."""

    def __init__(self) -> None:
        self.done = 0

    def start(self, step: str, total: int) -> None:
        """Ignore the step."""

    def advance(self, count: int = 1) -> None:
        """Count."""
        self.done += count


@pytest.fixture(scope="module")
def network() -> Any:
    """A network in miniature."""
    return TINY.build()


@pytest.fixture
def photos(make_example: Any) -> list[Example]:
    """Distinct photos, more than one batch."""
    return [make_example("dawn", seed) for seed in range(BATCH_PHOTOS + 3)]


def test_a_photo_is_embedded_once(network: Any, photos: list[Example], tmp_path: Path) -> None:
    """A second call computes only new photos, in any order; the embeddings of the others are identical."""
    first, second = Counting(), Counting()
    known = embeddings(photos[:-1], TINY, network, tmp_path, first)
    both = embeddings([*reversed(photos), photos[0]], TINY, network, tmp_path, second)
    assert (first.done, second.done) == (len(photos) - 1, 1)
    np.testing.assert_array_equal(both[1:-1], known[::-1])
    np.testing.assert_array_equal(both[-1], known[0])


def test_cached_embeddings_are_those_of_the_network(
    network: Any, photos: list[Example], tmp_path: Path
) -> None:
    """Embeddings with and without the cache are the same."""
    cached = embeddings(photos[:4], TINY, network, tmp_path, NoProgress())
    np.testing.assert_array_equal(cached, embed(photos[:4], TINY, network, NoProgress()))


def test_other_weights_use_another_cache(network: Any, photos: list[Example], tmp_path: Path) -> None:
    """Other weights of the same backbone use another cache file."""
    embeddings(photos[:2], TINY, network, tmp_path, NoProgress())
    other, changed = Counting(), TINY.build()
    changed.set_weights([2 * weights for weights in changed.get_weights()])
    embeddings(photos[:2], TINY, changed, tmp_path, other)
    assert other.done == 2
    assert len(list(tmp_path.glob("tiny-*.sqlite3"))) == 2


def test_a_damaged_row_is_computed_again(network: Any, photos: list[Example], tmp_path: Path) -> None:
    """A row of the wrong length is computed again."""
    before = embeddings(photos[:3], TINY, network, tmp_path, NoProgress())
    (path,) = tmp_path.glob("*.sqlite3")
    with sqlite3.connect(path) as cache:
        cache.execute("UPDATE embedding SET vector = x'00' WHERE photo = (SELECT min(photo) FROM embedding)")
    cache.close()
    again = Counting()
    after = embeddings(photos[:3], TINY, network, tmp_path, again)
    assert again.done == 1
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_embeddings_before_a_failure_are_kept(network: Any, photos: list[Example], tmp_path: Path) -> None:
    """After a failure in the second batch, the first is cached, and the error names the undecodable photo."""
    bad = Example("bad0" * 8, b"no photo", "dawn", "human")
    sentence = rf"cannot decode photo {'bad0' * 8} \(8 bytes\): Unknown image file format\."
    with pytest.raises(TrainingError, match=sentence):
        embeddings([*photos, bad], TINY, network, tmp_path, NoProgress())
    again = Counting()
    embeddings(photos, TINY, network, tmp_path, again)
    assert again.done == len(photos) - BATCH_PHOTOS


def test_embeddings_do_not_depend_on_their_batch(efficientnet: Any, photos: list[Example]) -> None:
    """The embedding of a photo does not depend on the other photos in its batch."""
    together = embed(photos[:5], EFFICIENTNET_LITE0, efficientnet, NoProgress())
    alone = embed(photos[4:5], EFFICIENTNET_LITE0, efficientnet, NoProgress())
    assert together.shape == (5, EFFICIENTNET_LITE0.embedding_dim)
    np.testing.assert_allclose(together[4:5], alone, atol=1e-4)


def test_dimmed_photos_are_cached_separately(network: Any, photos: list[Example], tmp_path: Path) -> None:
    """Plain and dimmed embeddings of one photo are cached separately."""
    plain, dim, again = (
        embeddings(photos[:2], TINY, network, tmp_path, NoProgress(), dim=dim) for dim in (False, True, False)
    )
    np.testing.assert_array_equal(plain, again)
    assert np.abs(plain - dim).max() > 0.1 * np.abs(plain).max()


def test_dimming_reduces_brightness_and_colour() -> None:
    """Brightness is halved, and the distance of each channel from grey is reduced to 40 % of that."""
    plan = EFFICIENTNET_LITE0
    red = (np.array([[[[200.0, 80.0, 80.0]]]], np.float32) - plan.offset) / plan.scale
    values = dimmed(red, plan).numpy() * plan.scale + plan.offset
    np.testing.assert_allclose(values[0, 0, 0], [76, 52, 52], rtol=1e-4)
