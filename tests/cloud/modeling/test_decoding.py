"""Rules of cloud/modeling/decoding.py: the graph and `schemas.pixels` have one definition of pixels."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from cloud.modeling.backbones import XCEPTION_SMALL, preprocess
from cloud.modeling.decoding import decode_stored, read_orientation, turn_upright
from schemas.image import inspect_image, normal_form
from schemas.image.exif import EXIF_HEADER
from schemas.image.png_pixels import chunk_bytes
from schemas.litert import PixelFormat
from schemas.litert.network_input import network_input
from schemas.pixels import decode_photo
from tests.pictures.comparison import compare
from tests.pictures.exif import exif_data
from tests.pictures.mutations import mutated
from tests.pictures.odd import encoded, managed_pictures, odd_pictures, scene

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")

Graph = Callable[[bytes], NDArray[np.uint8]]
MUTATIONS = 250
SIDE_PX = XCEPTION_SMALL.input_size_px


@pytest.fixture(scope="module")
def graph() -> Graph:
    """Decode as the exported graph does; ValueError if it cannot."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def upright(photo: tf.Tensor) -> tf.Tensor:
        return turn_upright(decode_stored(photo), read_orientation(photo))

    def decode(photo: bytes) -> NDArray[np.uint8]:
        try:
            pixels: NDArray[np.uint8] = upright(tf.constant(photo)).numpy()
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(str(error)) from error
        return pixels

    return decode


@pytest.mark.parametrize("name", odd_pictures())
def test_odd_pictures_are_the_same_in_graph_and_pillow(name: str, graph: Graph) -> None:
    """CMYK, grey, 16 bits, palettes, alpha, progressive and turned pictures differ by one level at most."""
    image = normal_form(odd_pictures()[name])
    pixels = np.asarray(decode_photo(image).picture).astype(int)
    assert np.abs(graph(image).astype(int) - pixels).max() <= 1
    assert int(read_orientation(tf.constant(image))) == inspect_image(image).orientation


@pytest.mark.parametrize("name", dict(managed_pictures()))
def test_the_graph_applies_no_profile(name: str, graph: Graph) -> None:
    """A client may send one to any model server, and the training had the numbers of the file."""
    image = dict(managed_pictures())[name]
    assert (graph(image) == graph(normal_form(image))).all()


@pytest.mark.parametrize("name", exif_data())
def test_the_graph_reads_the_same_orientation(name: str) -> None:
    """Also of EXIF data about which viewers differ, as a direct client may send them."""
    data, orientation, _ = exif_data()[name]
    exif = EXIF_HEADER + data
    jpeg, png = encoded(scene()), encoded(scene(), "PNG")
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2) + exif
    for image in (jpeg[:2] + segment + jpeg[2:], png[:33] + chunk_bytes(b"eXIf", data) + png[33:]):
        assert int(read_orientation(tf.constant(image))) == orientation


def test_training_and_the_light_server_see_the_same_input() -> None:
    """The preprocessing of the training, and that of the model server without TensorFlow."""
    pictures = [normal_form(picture) for picture in odd_pictures().values()]
    form = PixelFormat(SIDE_PX, SIDE_PX, XCEPTION_SMALL.offset, XCEPTION_SMALL.scale)
    trained = preprocess(XCEPTION_SMALL, tf.constant(pictures)).numpy()
    served = np.concatenate([network_input(picture, form) for picture in pictures])
    assert np.abs(trained - served).max() * XCEPTION_SMALL.scale < 1.01


@pytest.mark.parametrize("seed", [1001, 1002])
def test_g4_the_graph_agrees_on_mutations(seed: int, graph: Graph) -> None:
    """Accepted means decodable by the graph, to the size that was checked; also with the original bytes."""
    for (name, image), _ in zip(mutated(seed), range(MUTATIONS // 2), strict=False):
        try:
            compare(image, graph)
        except (AssertionError, ValueError) as error:
            raise AssertionError(f"{name}: {error}: {image.hex()}") from error


@pytest.mark.parametrize(
    "image", [b"", b"\xff", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(50), b"BM" + bytes(60)]
)
def test_other_bytes_are_an_invalid_argument(image: bytes, graph: Graph) -> None:
    """Other formats have sizes that nobody checked."""
    with pytest.raises(ValueError, match=r"."):
        graph(image)
