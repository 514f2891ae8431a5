"""How this process loads TensorFlow: the session and the SavedModel loader, not the whole package."""

import importlib.util
import os
import sys
import types


def prepare() -> None:
    """Make later imports of `tensorflow.…` skip the package's own `__init__`.

    That runs Keras, datasets and much else that serving never touches; without it the server starts in a
    quarter of the time and holds 150 MB less. For the life of the process `tensorflow` is then a bare
    package, so call this only in a process that does nothing but serve. Where TensorFlow has been
    imported already, it is used as it is.

    Raises:
        ModuleNotFoundError: where TensorFlow is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules:
        return
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(
            "expected TensorFlow for the model server, got none: install gleaner[modelserver]"
        )
    package = types.ModuleType("tensorflow")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules["tensorflow"] = package
