"""Backbones that users bring."""

import runpy
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from cloud.modeling.backbones import BackboneUnavailableError, get_backbone
from schemas.codec import content_id
from schemas.errors import PermanentError
from tests.conftest import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")

EXAMPLE = ROOT / "examples/own-model/backbone.py"


def small(*, top: str | None = None, include_pool: bool = False) -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(5, 3)(inputs)
    if include_pool or top:
        x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(9, activation=top)(x) if top else x)


@pytest.mark.parametrize("form", [{}, {"include_pool": True}, {"top": "softmax"}])
def test_a_keras_file_is_a_backbone(form: Any, tmp_path: Path) -> None:
    """A map of features is averaged, and a classification layer left out: the embedding is the same."""
    small(**form).save(tmp_path / "mine.keras")
    backbone = get_backbone(f"{tmp_path}/mine.keras:unit")
    assert (backbone.input_size_px, backbone.embedding_dim, backbone.pretrained) == (16, 5, True)
    pixels = np.full((2, 16, 16, 3), 51, np.float32)
    expected = small(include_pool=True)(pixels / 255.0)
    assert np.asarray(backbone.build()(pixels)) == pytest.approx(np.asarray(expected), abs=1e-5)


def test_an_object_of_a_module_is_a_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that builds a Keras model, or a Backbone."""
    (tmp_path / "my_networks.py").write_text(
        EXAMPLE.read_text("utf-8") + "\nfrom cloud.modeling.backbones import XCEPTION_SMALL as SMALL\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    built = get_backbone("my_networks:build:signed")
    assert (built.input_size_px, built.embedding_dim) == (64, 128)
    assert built.name.startswith("build-")
    assert get_backbone("my_networks:SMALL").name == "xception-small"


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("resnet", "expected one of .*, got 'resnet'"),
        ("none.keras", "there is no backbone none.keras"),
        ("no.such.module:NAME", "ModuleNotFoundError: No module named 'no'; install .* or set PYTHONPATH"),
        ("math:nothing", "module math has no 'nothing'; check the name"),
        ("math:pi", "expected a Backbone or a Keras model"),
        ("math:sin", "TypeError"),
    ],
)
def test_other_names_are_refused(name: str, match: str) -> None:
    """One sentence says why, and what a backbone can be."""
    with pytest.raises(BackboneUnavailableError, match=match):
        get_backbone(name)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "raise ValueError('no weights\\nsecond line')",
            "ValueError: no weights; mend it; python -c",
        ),
        ("assert False", "AssertionError: no message; mend it"),
        ("import sys; sys.exit(3)", "SystemExit: 3; mend it"),
        ("import no_such_thing", "No module named 'no_such_thing'; install the package of no_such_thing"),
        ("this is no Python", "SyntaxError: invalid syntax"),
        ("build = None", "has no 'build'"),
        ("def build():\n    raise OSError('no disk')", "OSError: no disk; mend it"),
        ("def build():\n    return None", "expected a Backbone or a Keras model, or a function"),
    ],
)
def test_a_module_that_fails_is_one_sentence(
    code: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the user's code, what it raised and how to see where; a script that ends itself too."""
    module = f"mine_{content_id(code.encode())}"
    (tmp_path / f"{module}.py").write_text(code, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PermanentError, match=told) as caught:
        get_backbone(f"{module}:build")
    assert "\n" not in str(caught.value)


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    """A file without its range, of no pixels, or with other words behind it."""
    small().save(tmp_path / "mine.keras")
    words = keras.Input((7,))
    keras.Model(words, keras.layers.Dense(3)(words)).save(tmp_path / "words.keras")
    for name, match in (
        ("mine.keras", "--preprocessing"),
        ("mine.keras:signd", "preprocessing: expected"),
        ("words.keras:raw", "pixels are taken as"),
    ):
        with pytest.raises(PermanentError, match=match):
            get_backbone(f"{tmp_path}/{name}")


def test_the_example_writes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands at its head work as they are."""
    monkeypatch.setattr("sys.argv", ["backbone.py", str(tmp_path / "mine.keras")])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert get_backbone(f"{tmp_path}/mine.keras:signed").embedding_dim == 128
