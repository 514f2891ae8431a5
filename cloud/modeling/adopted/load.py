"""Load a foreign model by the loader for its kind of file, and look at its answers."""

import numpy as np
import tensorflow as tf

from cloud.modeling.adopted.keras_file import load_keras
from cloud.modeling.adopted.parts import ForeignModel, ModelSource
from cloud.modeling.adopted.preprocessing import AdoptionError
from cloud.modeling.adopted.saved_model_folder import load_saved_model
from cloud.modeling.backbones.base import preprocess

__all__ = ["AdoptionError", "ForeignModel", "ModelSource", "answer_warnings", "load_model"]

_AS_ONNX = "PyTorch models cannot be adopted as they are; use torch.onnx.export, and adopt the .onnx file"
_CONSTANT = 1e-3
_FORMS = "a folder with saved_model.pb (SavedModel), or a file NAME.keras, NAME.tflite or NAME.onnx"
_REFUSED = {
    ".h5": "HDF5 files may run code when they are loaded; save the model with model.save('NAME.keras')",
    ".pb": "a SavedModel is adopted by its folder, not by its saved_model.pb",
    ".pt": _AS_ONNX,
    ".pth": _AS_ONNX,
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
    if path.is_file() and not path.stat().st_size:
        raise AdoptionError(f"{path} is empty", hint="save or copy the model again")
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


def answer_warnings(model: ForeignModel, source: ModelSource) -> list[str]:
    """Return what is suspicious about the model's answers for the sample photos.

    Raises:
        AdoptionError: they are no numbers.
    """
    logits = model.head.logits(model.network(preprocess(model.backbone, tf.constant(list(source.samples)))))
    if not np.isfinite(logits).all():
        raise AdoptionError(
            f"{source.path} gives NaN or infinite scores for ordinary photos",
            hint="check --preprocessing, and the weights",
        )
    probabilities = tf.nn.softmax(logits).numpy()
    if len(probabilities) > 1 and float(np.ptp(probabilities, axis=0).max()) < _CONSTANT:
        what = f"gives the same scores for {len(probabilities)} different photos"
        return [f"{source.path} {what}: check that it is trained, and --preprocessing"]
    return []
