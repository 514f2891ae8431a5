"""Which variant is served: the fastest, if it gains; measured once per model and processor."""

import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_serving.apis import prediction_log_pb2

from edge.modelserver.runtimes import variant
from edge.modelserver.runtimes.variant import GAIN, VariantOptions, choose_variant, fastest
from edge.modelserver.status import ServingError
from schemas.litert import EXTRA_ASSETS, NETWORK_FILE, Manifest, PixelFormat, Variant, read_manifest


@pytest.mark.parametrize(
    ("times_ms", "chosen"),
    [
        ({"float32": 5.0}, "float32"),
        ({"float32": 5.0, "int8": 2.5}, "int8"),
        ({"float32": 5.0, "int8": 4.6}, "float32"),  # within a tenth: the exact one
        ({"float32": 5.0, "int8": 9.0}, "float32"),  # a processor without instructions for it
        ({"float32": 5.0, "int8": 3.0, "int4": 2.0}, "int4"),
    ],
)
def test_the_fastest_variant_is_chosen_if_it_gains(times_ms: dict[str, float], chosen: str) -> None:
    """A later variant has to take less than nine tenths of the time of the first, most accurate one."""
    assert fastest(times_ms) == chosen


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=5))
def test_the_choice_is_never_slower_than_the_first(times: list[float]) -> None:
    """For any measurements, the chosen variant is the first, or faster."""
    by_name = {str(at): time for at, time in enumerate(times)}
    chosen = fastest(by_name)
    assert chosen == "0" or by_name[chosen] < GAIN * times[0]


@pytest.fixture
def version(saved: dict[str, Path], place: Any, tmp_path: Path) -> Path:
    """A version with two variants, which have the same network."""
    path: Path = place(saved["photo"], tmp_path, 1)
    extra = path / EXTRA_ASSETS
    (extra / "copy.tflite").write_bytes((path / NETWORK_FILE).read_bytes())
    return path


TWO = Manifest(
    "serving_default",
    (Variant("float32", (NETWORK_FILE.name,)), Variant("int8", ("copy.tflite",))),
    PixelFormat(16, 16, 0.0, 255.0),
)


def test_the_choice_is_cached_by_model_and_processor(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cached choice is used without a measurement, until the model's files or the processor change."""
    options, copy = (
        VariantOptions(cache=tmp_path / "cache/choices.json"),
        version / EXTRA_ASSETS / "copy.tflite",
    )
    assert choose_variant(version, TWO, options).name in {"float32", "int8"}
    choices = json.loads(options.cache.read_bytes())
    assert len(choices) == 1
    key = next(iter(choices))
    for name in ("int8", "float32"):
        options.cache.write_text(json.dumps({key: name}))
        assert choose_variant(version, TWO, options).name == name
    copy = version / EXTRA_ASSETS / "copy.tflite"
    for change in (
        lambda: copy.write_bytes(copy.read_bytes() + b" "),
        lambda: monkeypatch.setattr(variant, "processor", lambda: "another"),
    ):
        change()
        choose_variant(version, TWO, options)
    assert len(json.loads(options.cache.read_bytes())) == 3


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"x": 1}', b"\xff"])
def test_a_damaged_cache_is_measured_anew(version: Path, tmp_path: Path, content: bytes) -> None:
    """With any content of the cache file, the version is served and the file repaired."""
    options = VariantOptions(cache=tmp_path / "choices.json")
    options.cache.write_bytes(content)
    chosen = choose_variant(version, TWO, options).name
    assert chosen in json.loads(options.cache.read_bytes()).values()


def test_a_cache_that_cannot_be_written_is_no_error(version: Path, tmp_path: Path) -> None:
    """On a read-only root file system the variants are measured at each start."""
    (tmp_path / "file").touch()
    assert choose_variant(version, TWO, VariantOptions(cache=tmp_path / "file/choices.json"))


def test_a_variant_may_be_named(version: Path, tmp_path: Path) -> None:
    """A named variant is used without a measurement; a version without it is served by its first one."""
    cache = tmp_path / "choices.json"
    assert choose_variant(version, TWO, VariantOptions("int8", cache)).name == "int8"
    assert choose_variant(version, TWO, VariantOptions("int4", cache)).name == "float32"
    assert not cache.exists()


def test_warmup_photos_that_cannot_be_decoded_fail_the_load(
    saved: dict[str, Path], place: Any, tmp_path: Path
) -> None:
    """The photos that the variants are measured on are the version's own: a damaged one is its error."""
    records = tmp_path / "records"
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.inputs["image"].CopyFrom(tf.make_tensor_proto([b"no photo"]))
    with tf.io.TFRecordWriter(str(records)) as writer:
        writer.write(log.SerializeToString())
    path = place(saved["photo"], tmp_path, 1, records)
    (path / EXTRA_ASSETS / "copy.tflite").write_bytes((path / NETWORK_FILE).read_bytes())
    with pytest.raises(ServingError, match="tf_serving_warmup_requests: "):
        choose_variant(path, TWO, VariantOptions(cache=tmp_path / "choices.json"))


def test_a_missing_network_is_an_error_of_the_version(version: Path, tmp_path: Path) -> None:
    """A manifest that names a file that is not there fails the load with the file's name."""
    (version / EXTRA_ASSETS / "copy.tflite").unlink()
    with pytest.raises(ServingError, match=r"copy\.tflite: cannot be read"):
        choose_variant(version, TWO, VariantOptions(cache=tmp_path / "choices.json"))
    assert read_manifest(version) != TWO
