"""A network in LiteRT: the same outputs over gRPC, and versions without a network or with a broken one."""

import shutil
import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from cloud.export.saved_model import export_saved_model, warmup_photos
from cloud.export.serving_module import Model
from cloud.export.v1_loader import SavedModel
from cloud.modeling.backbones import XCEPTION_SMALL
from cloud.modeling.linear_head import Head
from cloud.modeling.novelty import fit_novelty
from edge.modelserver.runtimes.base import signature_of
from edge.modelserver.runtimes.graph import SessionOptions, TensorFlowRuntime
from edge.modelserver.runtimes.network import Network
from edge.modelserver.status import Code, ServingError
from edge.modelserver.tensors import Array
from schemas.litert import NETWORK_FILE, PIXELS_TENSOR
from tests.conftest import DEADLINE_S
from tests.edge.modelserver.runtimes.test_allocator import resident_kb

pytestmark = [
    pytest.mark.slow,
    # Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*"),
]

PREFER = "--prefer_tflite_model"


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported versions: 1 with its LiteRT network, 2 the same without it."""
    keras.utils.set_random_seed(0)
    base, network = tmp_path_factory.mktemp("exported"), XCEPTION_SMALL.build()
    draw = np.random.default_rng(0)
    novelty = fit_novelty(draw.uniform(size=(20, XCEPTION_SMALL.embedding_dim)))
    head = Head(draw.normal(size=(XCEPTION_SMALL.embedding_dim, 2)) * 50, draw.normal(size=2))
    model = Model(XCEPTION_SMALL, network, head, 1.0, ("cat", "dog"), novelty)
    with export_saved_model(model, base / "1", tflite=True):
        pass
    shutil.copytree(base / "1", base / "2")
    (base / "2" / NETWORK_FILE).unlink()
    return base


@pytest.fixture(scope="module")
def other_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LiteRT network whose probabilities are [0.25, 0.75] for every photo."""
    size, dim = XCEPTION_SMALL.input_size_px, XCEPTION_SMALL.embedding_dim

    class Constant(tf.Module):  # type: ignore[misc]  # tensorflow ships no types
        @tf.function(input_signature=[tf.TensorSpec([1, size, size, 3], tf.float32, name=PIXELS_TENSOR)])
        def __call__(self, pixels: Any) -> Any:
            zero = 0.0 * tf.reduce_mean(pixels)
            return {
                "probabilities": zero + tf.constant([[0.25, 0.75]]),
                "embedding": zero + tf.zeros([1, dim]),
                "novelty": zero + tf.zeros([1]),
            }

    module = Constant()
    folder = tmp_path_factory.mktemp("other-network")
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.__call__})
    file = folder / "network.tflite"
    file.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert())
    return file


@pytest.fixture(scope="module")
def photos() -> list[bytes]:
    return warmup_photos(5)


def graph(version: Path, photos: list[bytes]) -> dict[str, Any]:
    with SavedModel(version) as saved:
        return saved.predict(photos)


def answers(client: Any, photos: list[bytes], fetches: list[str] | None = None) -> dict[str, Any]:
    request = client.request("default", {"image": tf.make_tensor_proto(photos, tf.string, [len(photos)])})
    request.output_filter.extend(fetches or [])
    outputs = client.prediction.Predict(request, timeout=DEADLINE_S).outputs
    return {alias: tf.make_ndarray(proto) for alias, proto in outputs.items()}


@pytest.fixture
def serve(launch: Any, connect: Any, tmp_path: Path) -> Any:
    """Serve a copy of a version, optionally with another network; return the process and a client."""

    def start(source: Path, *flags: str, network: Path | None = None) -> Any:
        base = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        shutil.copytree(source, base / "1")
        if network is not None:
            shutil.copy(network, base / "1" / NETWORK_FILE)
        server = launch(f"--model_base_path={base}", *flags)
        return server, connect(server.listening().port)

    return start


def test_the_outputs_are_those_of_the_graph(versions: Path, photos: list[bytes], serve: Any) -> None:
    """With the flag, outputs have the types of the graph and its values within rounding."""
    _, client = serve(versions / "1", PREFER)
    for count in (1, 5):
        expected, got = graph(versions / "1", photos[:count]), answers(client, photos[:count])
        assert expected.keys() == got.keys() == {"probabilities", "embedding", "novelty"}
        for name, values in expected.items():
            assert got[name].dtype == values.dtype
            np.testing.assert_allclose(got[name], values, atol=1e-4)
    assert answers(client, photos, ["novelty"]).keys() == {"novelty"}
    assert answers(client, [])["probabilities"].shape == (0, 2)


def test_with_the_flag_the_network_answers(
    versions: Path, other_network: Path, photos: list[bytes], serve: Any
) -> None:
    """A version with another network answers as that network does, with the flag only."""
    of_graph, of_network = graph(versions / "1", photos)["probabilities"], [[0.25, 0.75]] * len(photos)
    assert np.abs(of_graph - of_network).max() > 0.01
    for flags, wanted in ((), of_graph), ((PREFER, "--enable_batching"), of_network):
        _, client = serve(versions / "1", *flags, network=other_network)
        np.testing.assert_allclose(answers(client, photos)["probabilities"], wanted, atol=1e-4)


def test_a_corrupt_photo_is_an_invalid_argument(
    versions: Path, photos: list[bytes], serve: Any, failure: Any
) -> None:
    """A photo that cannot be decoded gets INVALID_ARGUMENT; the next call is answered."""
    _, client = serve(versions / "1", PREFER)
    code, _ = failure(lambda: answers(client, [photos[0], b"no photo"]))
    assert code == "INVALID_ARGUMENT"
    assert len(answers(client, photos)["novelty"]) == len(photos)


def test_a_scalar_input_is_an_invalid_argument(versions: Path, photos: list[bytes]) -> None:
    """A tensor without dimensions is refused in the same way with and without the flag."""
    for preferred in (False, True):
        loaded = TensorFlowRuntime(SessionOptions(prefer_tflite=preferred)).load(versions / "1")
        asked = signature_of(loaded.signature_defs["serving_default"])
        feeds = {asked.inputs["image"].tensor: np.array(photos[0], object)}
        with pytest.raises(ServingError) as caught:
            loaded.run(feeds, [asked.outputs["novelty"]], None)
        assert caught.value.code is Code.INVALID_ARGUMENT
        loaded.close()


def test_a_version_without_a_network_is_served_by_its_graph(
    versions: Path, photos: list[bytes], serve: Any
) -> None:
    """The server logs the missing network and answers as without the flag."""
    server, client = serve(versions / "2", PREFER)
    assert any("modelserver.network_missing" in line and "network.tflite" in line for line in server.log)
    expected = graph(versions / "2", photos)["embedding"]
    np.testing.assert_allclose(answers(client, photos)["embedding"], expected, atol=1e-6)


def test_a_network_that_cannot_be_run_is_not_served(versions: Path, tmp_path: Path) -> None:
    """The version fails to load with the reason, instead of falling back to the graph."""
    shutil.copytree(versions / "1", tmp_path / "1")
    (tmp_path / "1" / NETWORK_FILE).write_bytes(b"no network")
    with pytest.raises(ServingError, match=r"network\.tflite: LiteRT cannot run it") as caught:
        TensorFlowRuntime(SessionOptions(prefer_tflite=True)).load(tmp_path / "1")
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_call_ends_at_its_deadline(versions: Path) -> None:
    """At the deadline the call fails, and photos that have not begun are dropped."""
    network = Network([versions / "1" / NETWORK_FILE], 1)
    size = XCEPTION_SMALL.input_size_px
    images = [np.zeros((1, size, size, 3), np.float32)] * 64
    with pytest.raises(ServingError) as caught:
        network.run(images, 0.0)
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert network.run(images[:2], None)["probabilities"].shape == (2, 2)
    network.close()


def test_photos_that_are_slow_to_decode_leave_other_calls_their_answers(versions: Path) -> None:
    """Two calls whose decoding does not end hold one thread each; a third call is answered."""
    size = XCEPTION_SMALL.input_size_px
    image, decoded = np.zeros((1, size, size, 3), np.float32), threading.Event()

    def prepare(item: str, _deadline_s: float | None) -> Array:
        if item == "slow":
            decoded.wait()
        return image

    network = Network([versions / "1" / NETWORK_FILE], 1, prepare=prepare)
    for _ in range(2):
        with pytest.raises(ServingError):
            network.run(["slow"], 0.0)
    assert network.run(["quick"], None)["probabilities"].shape == (1, 2)
    decoded.set()
    network.close()


def test_a_network_that_ran_holds_its_weights_once(versions: Path) -> None:
    """What LiteRT mapped of the file is given back after the first run of each interpreter; it runs again."""
    size, file = XCEPTION_SMALL.input_size_px, versions / "1" / NETWORK_FILE
    pixels = np.zeros((1, size, size, 3), np.float32)
    network = Network((file,), 1)
    try:
        first = network.run([pixels], DEADLINE_S)["embedding"]
        assert not resident_kb(file)
        # What it still reads of the file comes back, at most as much as before.
        np.testing.assert_array_equal(network.run([pixels], DEADLINE_S)["embedding"], first)
    finally:
        network.close()
