"""Backbones that users bring: a `.keras` file, or an object of a module that can be imported."""

import importlib
from functools import cache
from pathlib import Path
from typing import Any

import keras

from cloud.modeling.backbone_names import FILE, OBJECT, BackboneUnavailableError
from cloud.modeling.backbones.base import Backbone, weights_digest
from schemas.codec import content_id


@cache  # one network per process: a function may build another one each time
def load_custom(name: str) -> Backbone:
    """Load the backbone that `FILE.keras[:PREPROCESSING]` or `MODULE:NAME[:PREPROCESSING]` names.

    An object is a `Backbone`, a Keras model, or a function without arguments that returns one of them.

    Raises:
        BackboneUnavailableError: the module cannot be imported, or its object is none of these.
        AdoptionError: the file cannot be loaded, or the network takes no pixels or gives no embedding.
    """
    # These modules import this package.
    from cloud.modeling.adopted.keras_file import open_keras  # noqa: PLC0415

    if (found := FILE.fullmatch(name)) is not None:
        path = Path(found["file"])
        if not path.is_file():
            raise BackboneUnavailableError(f"there is no backbone {path}", hint="check the path")
        return _of_keras(open_keras(path), path.stem, name, found["preprocessing"])
    found = OBJECT.fullmatch(name)
    assert found is not None, "callers check the name first"
    given = _imported(found["module"], found["name"], name)
    if isinstance(given, Backbone):
        return given
    if not isinstance(given, keras.Model):
        raise BackboneUnavailableError(
            f"backbone {name}",
            expected="a Backbone or a Keras model, or a function that returns one",
            got=given,
        )
    return _of_keras(given, found["name"], name, found["preprocessing"])


def _imported(module: str, name: str, spec: str) -> Any:
    from cloud.modeling.adopted.preprocessing import first_line  # noqa: PLC0415 - as above

    try:
        found = importlib.import_module(module)
        given = getattr(found, name, None)
        result = given() if callable(given) and not isinstance(given, keras.Model) else given
    except (Exception, SystemExit) as error:  # it is the user's code, perhaps that of a script
        hint = f"mend it; python -c 'import {module} as m; m.{name}()' shows where"
        if isinstance(error, ModuleNotFoundError) and error.name is not None:
            hint = f"install the package of {error.name}, or set PYTHONPATH to its folder"
        what = first_line(error) if str(error) else "no message"
        raise BackboneUnavailableError(
            f"cannot load backbone {spec}: {type(error).__name__}: {what}", hint=hint
        ) from error
    if given is None:
        raise BackboneUnavailableError(
            f"cannot load backbone {spec}: module {module} has no {name!r}", hint="check the name"
        )
    return result


def _of_keras(model: Any, stem: str, spec: str, preprocessing: str | None) -> Backbone:
    from cloud.modeling.adopted.keras_file import embedding_network  # noqa: PLC0415 - as above
    from cloud.modeling.adopted.parts import file_name, plan  # noqa: PLC0415 - as above
    from cloud.modeling.adopted.preprocessing import parse_preprocessing  # noqa: PLC0415 - as above

    named = None if preprocessing is None else parse_preprocessing(preprocessing)
    network, dim = embedding_network(model, spec, named)
    # Weights and preprocessing are part of the name: embeddings are cached by it.
    identity = bytes.fromhex(content_id(f"{weights_digest(network)} {named}".encode()))
    return plan(file_name(Path(stem), identity), network.input_shape[1], dim, network)
