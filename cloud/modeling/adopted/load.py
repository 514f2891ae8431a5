"""Load a foreign model by the loader for its kind of file."""

from cloud.modeling.adopted.keras_file import load_keras
from cloud.modeling.adopted.parts import ForeignModel, ModelSource
from cloud.modeling.adopted.preprocessing import AdoptionError
from cloud.modeling.adopted.saved_model_folder import load_saved_model

__all__ = ["AdoptionError", "ForeignModel", "ModelSource", "load_model"]

_TO_SAVED_MODEL = "convert it to a SavedModel first, and adopt that"
_FORMS = "a folder with saved_model.pb (SavedModel), or a file NAME.keras, NAME.tflite or NAME.onnx"
_REFUSED = {
    ".h5": "HDF5 files may run code when they are loaded; save the model with model.save('NAME.keras')",
    ".pb": "a SavedModel is adopted by its folder, not by its saved_model.pb",
    ".pt": f"PyTorch models cannot be adopted as they are; {_TO_SAVED_MODEL}",
    ".pth": f"PyTorch models cannot be adopted as they are; {_TO_SAVED_MODEL}",
}


def load_model(source: ModelSource) -> ForeignModel:
    """Load a SavedModel, or a `.keras`, `.tflite` or `.onnx` file, and try it on the sample photos.

    Raises:
        AdoptionError: it does not exist, is of another kind, cannot be loaded, or its input or output cannot
            be used.
    """
    path = source.path
    if not path.exists():
        raise AdoptionError(f"there is no model {path}", hint=f"name {_FORMS}")
    if (path / "saved_model.pb").is_file():
        return load_saved_model(source)
    if path.suffix == ".keras" and path.is_file():
        return load_keras(source)
    if path.suffix in {".tflite", ".onnx"} and path.is_file():
        # Only where they are needed: both libraries are large, and that for ONNX is an extra.
        if path.suffix == ".tflite":
            from cloud.modeling.adopted.litert.litert_file import load_litert  # noqa: PLC0415

            return load_litert(source)
        from cloud.modeling.adopted.onnx.onnx_file import load_onnx  # noqa: PLC0415

        return load_onnx(source)
    if path.suffix in _REFUSED:
        raise AdoptionError(f"{path}: {_REFUSED[path.suffix]}")
    raise AdoptionError(f"{path} is not a model that can be adopted", hint=f"name {_FORMS}")
