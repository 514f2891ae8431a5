"""Copy the message files of TensorFlow that TensorFlow Serving's API imports: 300 kB instead of 2 GB.

`messages.py TENSORFLOW DIR`: TENSORFLOW is the wheel or a folder where TensorFlow is installed; DIR has
tensorflow-serving-api.
"""

import importlib
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType

_STUBS = ("get_model_status_pb2", "model_service_pb2_grpc", "predict_pb2", "prediction_service_pb2_grpc")


def main(source: Path, target: Path) -> None:
    """Copy the message files from `source` to `target`."""
    with tempfile.TemporaryDirectory() as scratch:
        if source.suffix == ".whl":
            _unpack(source, Path(scratch))
            source = Path(scratch)
        files = _needed(source, target)
        copies = [target / file.relative_to(source) for file in files]
        for file, copy in zip(files, copies, strict=True):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    print(f"{len(copies)} message files of TensorFlow, {sum(copy.stat().st_size for copy in copies)} bytes")


def _unpack(wheel: Path, scratch: Path) -> None:
    """Unpack only message files and `__init__.py` files of the wheel, which has 600 MB."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("tensorflow/") and name.endswith(("_pb2.py", "/__init__.py")):
                archive.extract(name, scratch)


def _needed(source: Path, target: Path) -> list[Path]:
    """Import the stubs with an empty `tensorflow` package; return its files that were loaded."""
    package = ModuleType("tensorflow")
    package.__path__ = [str(source / "tensorflow")]
    sys.modules["tensorflow"] = package
    sys.path.insert(0, str(target))
    for name in _STUBS:
        importlib.import_module(f"tensorflow_serving.apis.{name}")
    modules = [module for name, module in sys.modules.items() if name.startswith("tensorflow.")]
    return sorted(Path(module.__file__) for module in modules if module.__file__)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
