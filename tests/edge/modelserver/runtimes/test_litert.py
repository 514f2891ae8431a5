"""Loading a version by LiteRT: what is served, and the error for each broken part."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from edge.modelserver.runtimes.decoding_memory import DecodingMemory
from edge.modelserver.runtimes.graph import TensorFlowRuntime
from edge.modelserver.runtimes.litert import LiteRTRuntime
from edge.modelserver.runtimes.variant import VariantOptions
from edge.modelserver.status import ServingError
from schemas.litert import (
    MANIFEST_FILE,
    NETWORK_FILE,
    Manifest,
    PixelFormat,
    Variant,
    encode_manifest,
    read_manifest,
)

RUNTIME = LiteRTRuntime(1, VariantOptions("float32"))


@pytest.fixture
def version(saved: dict[str, Path], place: Any, tmp_path: Path) -> Path:
    path: Path = place(saved["photo"], tmp_path, 1)
    return path


def change_manifest(path: Path, **fields: Any) -> None:
    manifest = read_manifest(path)
    assert manifest is not None
    (path / MANIFEST_FILE).write_bytes(encode_manifest(structs.replace(manifest, **fields)))


def chained(path: Path, *files: str) -> None:
    change_manifest(path, variants=(Variant("float32", files),))


def narrow(path: Path) -> None:
    change_manifest(path, pixels=PixelFormat(8, 16, 0.0, 1.0))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "saved_model.pb").unlink(), "NOT_FOUND: Could not find SavedModel"),
        (lambda p: (p / "saved_model.pb").write_bytes(b"\xff\xff"), "NOT_FOUND: Could not find SavedModel"),
        (
            lambda p: (p / "saved_model.pb").write_bytes(b""),
            "NOT_FOUND: no MetaGraphDef in .*serve",
        ),
        (lambda p: (p / MANIFEST_FILE).unlink(), "FAILED_PRECONDITION: .* has no LiteRT variant"),
        (lambda p: (p / MANIFEST_FILE).write_bytes(b"{"), "INVALID_ARGUMENT: no valid LiteRT manifest"),
        (lambda p: change_manifest(p, signature="x"), "INVALID_ARGUMENT: .*no signature x with one input"),
        (lambda p: (p / NETWORK_FILE).unlink(), r"INVALID_ARGUMENT: network.tflite: LiteRT"),
        (lambda p: (p / NETWORK_FILE).write_bytes(b""), r"INVALID_ARGUMENT: network.tflite: LiteRT"),
        (
            lambda p: (p / NETWORK_FILE).write_bytes(b"x" * 99),
            r"INVALID_ARGUMENT: network.tflite: LiteRT",
        ),
        (
            lambda p: change_manifest(p, pixels=None),
            "INVALID_ARGUMENT: .*'pixels' is not an output of an earlier",
        ),
        (lambda p: chained(p, "network.tflite", "later.tflite"), "INVALID_ARGUMENT: .*later"),
    ],
)
def test_a_broken_version_is_not_loaded(
    version: Path, damage: Callable[[Path], object], message: str
) -> None:
    """Each broken part fails the load with a status and a sentence that names it."""
    damage(version)
    with pytest.raises(ServingError, match=message):
        RUNTIME.load(version)


def test_a_manifest_of_another_size_fails_the_call(version: Path, jpeg: bytes) -> None:
    """A network that cannot take the input that the manifest describes is an INTERNAL error of the call."""
    narrow(version)
    program = RUNTIME.load(version)
    signature = program.signature_defs["serving_default"]
    with pytest.raises(ServingError, match="INTERNAL: LiteRT: "):
        program.run({signature.inputs["image"].name: np.array([jpeg], object)}, ["embedding"], None)
    program.close()


def test_only_the_signature_that_can_be_called_is_listed(version: Path) -> None:
    """GetModelMetadata has the signature of the variants as it is in the SavedModel, and no other."""
    program = RUNTIME.load(version)
    assert set(program.signature_defs) == {"serving_default"}
    assert set(program.signature_defs["serving_default"].outputs) == {"embedding", "probabilities"}
    program.close()


def test_calls_without_photos_and_wrong_shapes(version: Path, jpeg: bytes) -> None:
    """No photos give empty outputs of the right shape; a scalar or a matrix of photos is INVALID_ARGUMENT."""
    program = RUNTIME.load(version)
    signature = program.signature_defs["serving_default"]
    tensor, fetch = signature.inputs["image"].name, signature.outputs["probabilities"].name
    assert program.run({tensor: np.array([], object)}, [fetch], None)[0].shape == (0, 2)
    for photos in (np.array(jpeg, object), np.array([[jpeg]], object)):
        with pytest.raises(ServingError, match="INVALID_ARGUMENT: expected a batch, got shape"):
            program.run({tensor: photos}, [fetch], None)
    program.close()


def test_a_manifest_for_the_tests_is_valid(saved: dict[str, Path]) -> None:
    """Both kinds of models of these tests have a LiteRT part: with photos, and with tensors."""
    manifests = [read_manifest(saved[name]) for name in ("photo", "half+2")]
    assert all(isinstance(manifest, Manifest) for manifest in manifests)
    assert [manifest.pixels is None for manifest in manifests if manifest] == [False, True]


@pytest.mark.parametrize(
    "make_runtime",
    [
        lambda memory: LiteRTRuntime(1, VariantOptions("float32"), memory),
        lambda memory: TensorFlowRuntime(memory=memory),
    ],
    ids=["litert", "tensorflow"],
)
def test_g3_photos_of_all_calls_share_one_memory(
    version: Path, jpeg: bytes, make_runtime: Callable[[DecodingMemory], Any]
) -> None:
    """A call waits for memory that others hold, is refused before its deadline, and gives its own back."""
    memory = DecodingMemory(1000, 1)
    program = make_runtime(memory).load(version)
    signature = program.signature_defs["serving_default"]
    tensor, fetch = signature.inputs["image"].name, signature.outputs["probabilities"].name
    photos = {tensor: np.array([jpeg, jpeg], object)}
    with (
        memory.taken(1000, None),
        pytest.raises(ServingError, match=r"RESOURCE_EXHAUSTED: no memory .* send it again later"),
    ):
        program.run(photos, [fetch], 0.5)
    assert program.run(photos, [fetch], None)[0].shape == (2, 2)
    assert memory.used_bytes == 0
    program.close()
