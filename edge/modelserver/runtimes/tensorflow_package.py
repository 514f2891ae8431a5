"""Load only the parts of TensorFlow that serving needs: the session and the SavedModel loader."""

import importlib.util
import os
import sys
import types

from schemas.distribution import install_command
from schemas.errors import PermanentError


def prepare() -> None:
    """Make later imports of `tensorflow.…` skip the package's `__init__`.

    It imports Keras, datasets and other parts that serving does not use. Without them the server starts in
    a quarter of the time and uses 150 MB less. `tensorflow` is then a bare package until the process ends,
    so call this only in a process that does nothing but serve. No effect if TensorFlow is imported already.

    Raises:
        PermanentError: TensorFlow is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules:
        return
    spec = importlib.util.find_spec("tensorflow")  # finds the package without running it
    if spec is None or spec.submodule_search_locations is None:
        raise PermanentError(
            "cannot start the model server: TensorFlow is not installed",
            hint=f"{install_command('modelserver')}, or {install_command('litert')} for versions with LiteRT",
        )
    # A package object with the path alone: submodules import as usual, `__init__` never runs.
    package = types.ModuleType("tensorflow")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules["tensorflow"] = package
