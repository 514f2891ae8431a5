"""The LiteRT runtime answers as the SavedModel's graph, also for photos that decoders read differently."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cloud.export.v1_loader import SavedModel
from edge.modelserver.runtimes.base import signature_of
from edge.modelserver.runtimes.litert import LiteRTRuntime
from edge.modelserver.runtimes.variant import VariantOptions
from schemas.litert import FLOAT32
from tests.default_version import default_version

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*"),
]

Outputs = dict[str, Any]
Predict = Callable[[list[bytes]], Outputs]
EVERY = slice(None)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0 with its ImageNet weights, and a random head that answers with all confidences."""
    return default_version(tmp_path_factory) / "1"


@pytest.fixture(scope="module")
def litert(version: Path) -> Iterator[Predict]:
    """The float32 variant, by the runtime of the model server."""
    program = LiteRTRuntime(options=VariantOptions(FLOAT32)).load(version)
    signature = signature_of(program.signature_defs["serving_default"])

    def predict(photos: list[bytes]) -> dict[str, Any]:
        values = np.empty(len(photos), object)
        values[:] = photos
        fetches = list(signature.outputs.values())
        arrays = program.run({signature.inputs["image"].tensor: values}, fetches, None)
        return dict(zip(signature.outputs, arrays, strict=True))

    yield predict
    program.close()


@pytest.fixture(scope="module")
def graph(version: Path) -> Iterator[SavedModel]:
    """The SavedModel's graph, loaded once for all photos."""
    with SavedModel(version) as saved:
        yield saved


def check(expected: Outputs, got: Outputs, rows: slice = EVERY) -> None:
    """Compare all outputs of both for the same photos, or for some rows of them."""
    expected, got = ({name: values[rows] for name, values in each.items()} for each in (expected, got))
    assert np.abs(got["probabilities"] - expected["probabilities"]).max() < 1e-4
    assert np.abs(got["novelty"] - expected["novelty"]).max() < 1e-3
    first, second = got["embedding"], expected["embedding"]
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    assert ((first * second).sum(axis=1) / lengths).min() > 0.9999


def scene(width: int = 320, height: int = 240) -> Image.Image:
    """A picture with edges, gradients, colours and noise."""
    draw = np.random.default_rng(7)
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows * 255 / height, columns * 255 / width, (rows * columns) % 256], axis=-1)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = (250, 20, 40)
    noisy = np.clip(pixels + draw.normal(0, 12, pixels.shape), 0, 255)
    return Image.fromarray(noisy.astype(np.uint8))


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(scene(), "JPEG", exif=exif)


def sixteen_bits(picture: Image.Image) -> bytes:
    grey = np.asarray(picture.convert("L")).astype(np.uint16)
    return encoded(Image.fromarray(grey * 257), "PNG")


def with_alpha() -> Image.Image:
    picture = scene().convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    return picture


ODD = {
    "grey JPEG": lambda: encoded(scene().convert("L"), "JPEG"),
    "CMYK JPEG": lambda: encoded(scene().convert("CMYK"), "JPEG"),
    "progressive JPEG": lambda: encoded(scene(), "JPEG", progressive=True),
    "4:4:4 JPEG": lambda: encoded(scene(), "JPEG", subsampling=0),
    "4:2:2 JPEG": lambda: encoded(scene(), "JPEG", subsampling=1),
    "JPEG of quality 5": lambda: encoded(scene(), "JPEG", quality=5),
    "odd size": lambda: encoded(scene(321, 239), "JPEG"),
    "smaller than the input": lambda: encoded(scene(40, 30), "JPEG"),
    "one pixel": lambda: encoded(scene(1, 1), "JPEG"),
    "a strip": lambda: encoded(scene(1000, 3), "JPEG"),
    "PNG": lambda: encoded(scene(), "PNG"),
    "grey PNG": lambda: encoded(scene().convert("L"), "PNG"),
    "PNG of 16 bits": lambda: sixteen_bits(scene()),
    "palette PNG": lambda: encoded(scene().quantize(16), "PNG"),
    "PNG of 1 bit": lambda: encoded(scene().convert("1"), "PNG"),
    "alpha PNG": lambda: encoded(with_alpha(), "PNG"),
    "grey PNG with alpha": lambda: encoded(with_alpha().convert("LA"), "PNG"),
    "palette PNG with alpha": lambda: encoded(with_alpha().quantize(16), "PNG"),
    "PNG with a transparent colour": lambda: encoded(scene().quantize(16), "PNG", transparency=3),
    **{f"turned by EXIF {number}": lambda number=number: turned(number) for number in range(1, 9)},
}


@pytest.fixture(scope="module")
def of_odd_photos(graph: SavedModel, litert: Predict) -> tuple[Outputs, Outputs]:
    """The answers of both to all odd photos, in one call."""
    photos = [draw() for draw in ODD.values()]
    return graph.predict(photos), litert(photos)


@pytest.mark.parametrize("kind", ODD)
def test_odd_photos_get_the_answers_of_the_graph(of_odd_photos: tuple[Outputs, Outputs], kind: str) -> None:
    """In any format, probabilities differ by less than 1e-4, and embeddings have a cosine above 0.9999."""
    row = list(ODD).index(kind)
    check(*of_odd_photos, slice(row, row + 1))


@pytest.mark.photos
def test_real_photos_get_the_answers_of_the_graph(
    graph: SavedModel, litert: Predict, photo_collection: Path
) -> None:
    """The same for the gold photos of the collection."""
    photos = [file.read_bytes() for file in sorted((photo_collection / "gold").rglob("*.jpg"))]
    assert photos
    check(graph.predict(photos), litert(photos))
