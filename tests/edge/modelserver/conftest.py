"""Fixtures: real SavedModels, the server as a separate process, and a client with the stock stubs."""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from bus.broker.process import free_port
from schemas.litert import (
    FLOAT32,
    MANIFEST_FILE,
    NETWORK_FILE,
    PIXELS_TENSOR,
    Manifest,
    PixelFormat,
    Variant,
    encode_manifest,
)

REPO = Path(__file__).parents[3]
EXTERNAL = "GLEANER_MODEL_SERVER"
"""Variable with host:port of another server, such as tensorflow_model_server, to run the contract on. It must
see this machine's files, scan for versions each second, and take reloads."""
# Deadlines only end a hang: a test waits for events, and none of them depends on the speed of the machine.
START_S = 300.0
CALL_S = 120.0


def eventually(check: Callable[[], Any], what: str, timeout_s: float = CALL_S) -> Any:
    """Wait until `check` returns something true, and return that."""
    deadline_s, pause = time.monotonic() + timeout_s, threading.Event()
    while time.monotonic() < deadline_s:
        if found := check():
            return found
        pause.wait(0.02)
    raise AssertionError(f"did not happen within {timeout_s} s: {what}")


@pytest.fixture(scope="session", name="eventually")
def eventually_fixture() -> Callable[..., Any]:
    return eventually


@dataclass
class ServerProcess:
    """A running `python -m edge.modelserver`."""

    process: subprocess.Popen[str]
    lines: "queue.Queue[str]" = field(default_factory=queue.Queue)
    log: list[str] = field(default_factory=list)
    port: int = 0
    metrics_port: int = 0

    def read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            self.lines.put(line)

    def wait_for(self, event: str, timeout_s: float = START_S) -> dict[str, Any]:
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{event} not logged within {timeout_s} s: {self.log}") from None
            if event in line:
                found: dict[str, Any] = json.loads(line)
                return found

    def listening(self) -> "ServerProcess":
        self.port = self.wait_for("modelserver.listening")["port"]
        return self

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=START_S)

    def processor_s(self) -> float:
        after_name = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


_WITH_GRACE = """
import sys
from edge.modelserver import main, process
process.GRACE_S = {}
sys.exit(main())
"""


@contextmanager
def launching() -> Iterator[Callable[..., ServerProcess]]:
    """Yield a function that starts a server with the given flags on a free port; all are killed at the end.

    `grace_s` replaces the seconds that requests may continue after a SIGTERM.
    """
    started: list[ServerProcess] = []

    def start(*flags: str, grace_s: float | None = None, runtime: str = "tensorflow") -> ServerProcess:
        launcher = ["-m", "edge.modelserver"] if grace_s is None else ["-c", _WITH_GRACE.format(grace_s)]
        command = [sys.executable, *launcher, "--port=0", f"--runtime={runtime}", *flags]
        process = subprocess.Popen(command, cwd=REPO, stderr=subprocess.PIPE, text=True)
        server = ServerProcess(process)
        threading.Thread(target=server.read, daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait(timeout=START_S)
        assert server.process.stderr is not None
        server.process.stderr.close()


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[..., ServerProcess]]:
    """Start servers; those still running at the end of the module are killed: each scans its folders."""
    with launching() as start:
        yield start


class Client:
    """The stubs of tensorflow-serving-api, and short methods for the calls of the tests."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def request(self, name: str, inputs: Mapping[str, Any], signature: str = "", **spec: Any) -> Any:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = name
        request.model_spec.signature_name = signature
        if "version" in spec:
            request.model_spec.version.value = spec["version"]
        if "label" in spec:
            request.model_spec.version_label = spec["label"]
        for alias, value in inputs.items():
            proto = value if hasattr(value, "tensor_shape") else tf.make_tensor_proto(value)
            request.inputs[alias].CopyFrom(proto)
        return request

    def predict(
        self, name: str, inputs: Mapping[str, Any], *args: Any, timeout: float = CALL_S, **spec: Any
    ) -> Any:
        return self.prediction.Predict(self.request(name, inputs, *args, **spec), timeout=timeout)

    def half(self, name: str, x: list[float], **spec: Any) -> list[float]:
        return list(self.predict(name, {"x": x}, **spec).outputs["y"].float_val)

    def status(self, name: str, version: int | None = None) -> dict[int, tuple[str, int, str]]:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = name
        if version is not None:
            request.model_spec.version.value = version
        response = self.models.GetModelStatus(request, timeout=CALL_S)
        state = get_model_status_pb2.ModelVersionStatus.State.Name
        return {
            one.version: (state(one.state), one.status.error_code, one.status.error_message)
            for one in response.model_version_status
        }

    def states(self, name: str) -> dict[int, str]:
        return {version: state for version, (state, _, _) in self.status(name).items()}

    def reload(self, config: str, timeout: float = CALL_S) -> Any:
        request = model_management_pb2.ReloadConfigRequest()
        text_format.Parse(config, request.config)
        return self.models.HandleReloadConfigRequest(request, timeout=timeout)


def failure(call: Callable[[], Any]) -> tuple[str, str]:
    """Make a call that has to fail; return the name of its status code and its message."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return error.code().name, error.details()
    raise AssertionError(f"the call did not fail: {answer}")


@pytest.fixture(scope="session", name="failure")
def failure_fixture() -> Callable[..., tuple[str, str]]:
    return failure


@pytest.fixture(scope="session")
def connect() -> Iterator[Callable[[int | str], Client]]:
    """Open a client of an address, or of a port of this machine; closed at the end."""
    clients: list[Client] = []

    def to(address: int | str) -> Client:
        clients.append(Client(address if isinstance(address, str) else f"127.0.0.1:{address}"))
        return clients[-1]

    yield to
    for client in clients:
        client.channel.close()


# Models


def _photo(bias: float) -> Any:
    """A model with the signature of the project: encoded photos in, probabilities and an embedding out."""

    class Photo(tf.Module):  # type: ignore[misc]  # tensorflow ships no types
        def __init__(self) -> None:
            super().__init__()
            draw = tf.random.stateless_normal
            self.embed = tf.Variable(draw([16 * 16 * 3, 8], [1, 2]) * 0.01)
            self.head = tf.Variable(draw([8, 2], [3, 4]))
            self.bias = tf.Variable([bias, 0.0])

        def pixels(self, image: Any) -> Any:
            decoded = tf.cond(
                tf.io.is_jpeg(image),
                lambda: tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE"),
                lambda: tf.io.decode_image(image, channels=3, expand_animations=False),
            )
            resized = tf.image.resize(decoded, [16, 16], antialias=True)
            resized.set_shape([16, 16, 3])
            return resized / 255.0

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
        def serve(self, image: Any) -> Any:
            spec = tf.TensorSpec([16, 16, 3], tf.float32)
            return self.answer(tf.map_fn(self.pixels, image, fn_output_signature=spec))

        def answer(self, pixels: Any) -> Any:
            embedding = tf.reshape(pixels, [-1, 16 * 16 * 3]) @ self.embed
            return {
                "probabilities": tf.nn.softmax(embedding @ self.head + self.bias),
                "embedding": embedding,
            }

    photo = Photo()
    return photo, {"serving_default": photo.serve}


def _half_plus(plus: float) -> Any:
    """x/2 + `plus`, with the size of its batch; and signatures that fail or run until the test ends them."""

    class Half(tf.Module):  # type: ignore[misc]  # tensorflow ships no types
        def __init__(self) -> None:
            super().__init__()
            self.half = tf.Variable(0.5)
            self.plus = tf.Variable(plus)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def serve(self, x: Any) -> Any:
            return {
                "y": self.half * x + self.plus,
                "rows": tf.zeros_like(x) + tf.cast(tf.size(x), tf.float32),
            }

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name=n) for n in ("a", "b")])
        def add(self, a: Any, b: Any) -> Any:
            return {"total": a + b + 0.0 * self.plus}

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="x")])
        def wide(self, x: Any) -> Any:
            return {"sum": tf.reduce_sum(x, axis=1) + 0.0 * self.plus}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="path")])
        def held(self, path: Any) -> Any:
            """Write the file `PATH.running`, and run until the file of the first path exists."""

            def found() -> Any:
                return tf.size(tf.io.matching_files(path[:1]))

            with tf.control_dependencies([tf.io.write_file(path[0] + ".running", "")]):
                (count,) = tf.while_loop(lambda count: count < 1, lambda _: [found()], [found()])
            return {"found": tf.zeros(tf.shape(path), tf.int32) + count}

    half = Half()
    names = {"serving_default": half.serve, "add": half.add, "wide": half.wide, "held": half.held}
    return half, names


def _add_litert(path: Path, module: Any) -> None:
    """Add the LiteRT part for the signature serving_default."""
    form = PixelFormat(16, 16, 0.0, 255.0) if hasattr(module, "answer") else None
    if form:
        one = tf.TensorSpec([1, 16, 16, 3], tf.float32, name=PIXELS_TENSOR)
        answer = tf.function(module.answer, input_signature=[one])
    else:
        answer = module.serve
    converter = tf.lite.TFLiteConverter.from_concrete_functions([answer.get_concrete_function()], module)
    (path / NETWORK_FILE).parent.mkdir()
    (path / NETWORK_FILE).write_bytes(converter.convert())
    manifest = Manifest("serving_default", (Variant(FLOAT32, (NETWORK_FILE.name,)),), form)
    (path / MANIFEST_FILE).write_bytes(encode_manifest(manifest))


def _save_examples_model(path: Path) -> None:
    """A model with classification and regression signatures, which only the V1 builder can write."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, [None], name="examples")
        features = tf.io.parse_example(serialized, {"x": tf.io.FixedLenFeature([], tf.float32)})
        weight = v1.get_variable("weight", initializer=tf.constant(0.5))
        score = features["x"] * weight
        scores = tf.stack([score, 1.0 - score], axis=1)
        classes = tf.tile(tf.constant([["cat", "dog"]]), [tf.shape(score)[0], 1])
        session.run(v1.global_variables_initializer())
        utils = v1.saved_model.signature_def_utils
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "classify": utils.classification_signature_def(serialized, classes, scores),
                "scores": utils.classification_signature_def(serialized, None, scores),
                "regress": utils.regression_signature_def(serialized, score),
                "serving_default": utils.predict_signature_def({"examples": serialized}, {"score": score}),
            },
        )
        builder.save()


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """SavedModels to copy as versions, by name: photo, photo-b, half+2, half+3, examples."""
    root = tmp_path_factory.mktemp("saved")
    made = {
        "photo": _photo(0.0),
        "photo-b": _photo(5.0),
        "half+2": _half_plus(2.0),
        "half+3": _half_plus(3.0),
    }
    tf.get_logger().setLevel("ERROR")  # the V1 builder warns that it is deprecated
    for name, (module, signatures) in made.items():
        tf.saved_model.save(module, str(root / name), signatures=signatures)
        _add_litert(root / name, module)
    _save_examples_model(root / "examples")
    return {path.name: path for path in root.iterdir()}


def place(source: Path, base_path: Path, version: int | str, records: Path | None = None) -> Path:
    """Install a version as a release does: write it under another name, then rename it."""
    staged = base_path / f"tmp-{version}"
    shutil.copytree(source, staged)
    if records is not None:
        extra = staged / "assets.extra"
        extra.mkdir(exist_ok=True)
        shutil.copy(records, extra / "tf_serving_warmup_requests")
    return staged.rename(base_path / str(version))


@pytest.fixture(scope="session", name="place")
def place_fixture() -> Callable[..., Path]:
    return place


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    """A photo of 64 x 48 pixels."""
    pixels = tf.cast(tf.random.stateless_uniform([48, 64, 3], [5, 6], 0, 256, tf.int32), tf.uint8)
    encoded: bytes = tf.io.encode_jpeg(pixels).numpy()
    return encoded


# The shared server


def entry(name: str, base_path: Path, more: str = "") -> str:
    """One model of a ModelServerConfig."""
    return f'config {{ name: "{name}" base_path: "{base_path}" model_platform: "tensorflow" {more} }}'


@pytest.fixture(scope="session", name="entry")
def entry_fixture() -> Callable[..., str]:
    return entry


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of a shared server on each implementation that can pass them."""
    if "runtime" in metafunc.fixturenames:
        names = ["tensorflow", "litert"] + ["external"] * (EXTERNAL in os.environ)
        for mark, other in (("graph", "litert"), ("own_process", "external")):
            if metafunc.definition.get_closest_marker(mark) and other in names:
                names.remove(other)
        metafunc.parametrize("runtime", names, scope="module", indirect=True)


@pytest.fixture(scope="module")
def runtime(request: pytest.FixtureRequest) -> str:
    """What serves the shared models: `tensorflow`, `litert`, or `external`, the server named by EXTERNAL."""
    name: str = request.param
    return name


@dataclass
class SharedServers:
    """The servers that most tests share, by runtime; each is started once, and suspended between modules.

    Args:
        start: Starts a server with flags.
    """

    start: Callable[..., ServerProcess]
    standing: dict[str, str] = field(default_factory=dict)
    running: dict[str, ServerProcess] = field(default_factory=dict)


@pytest.fixture(scope="session")
def shared_servers() -> Iterator[SharedServers]:
    """The shared servers of this test process."""
    with launching() as start:
        yield SharedServers(start)


@pytest.fixture(scope="module")
def standing(
    saved: dict[str, Path],
    shared_servers: SharedServers,
    tmp_path_factory: pytest.TempPathFactory,
    runtime: str,
) -> str:
    """The config entries of the models that all tests share: pets, half and, for graphs, examples."""
    if runtime not in shared_servers.standing:
        root = tmp_path_factory.mktemp("standing")
        entries = []
        models = [("pets", "photo"), ("half", "half+2"), ("examples", "examples")]
        for name, source in models[: 2 if runtime == "litert" else 3]:
            (root / name).mkdir()
            place(saved[source], root / name, 1)
            entries.append(entry(name, root / name))
        shared_servers.standing[runtime] = " ".join(entries)
    return shared_servers.standing[runtime]


@pytest.fixture(scope="module")
def server(
    standing: str, shared_servers: SharedServers, tmp_path_factory: pytest.TempPathFactory, runtime: str
) -> Iterator[ServerProcess | None]:
    """The server that most tests share; scans ten times a second and attempts a load twice."""
    if runtime == "external":
        yield None
        return
    if runtime not in shared_servers.running:
        folder = tmp_path_factory.mktemp("config")
        config_file, monitoring = folder / "models.config", folder / "monitoring.config"
        monitoring.write_text("prometheus_config { enable: true }")
        config_file.write_text(f"model_config_list {{ {standing} }}")
        metrics_port = free_port()
        started = shared_servers.start(
            f"--model_config_file={config_file}",
            f"--rest_api_port={metrics_port}",
            f"--monitoring_config_file={monitoring}",
            "--file_system_poll_wait_seconds=0.1",
            "--max_num_load_retries=1",
            "--load_retry_interval_micros",
            "100000",
            runtime=runtime,
        ).listening()
        started.metrics_port = metrics_port
        shared_servers.running[runtime] = started
    process = shared_servers.running[runtime].process
    process.send_signal(signal.SIGCONT)
    yield shared_servers.running[runtime]
    process.send_signal(signal.SIGSTOP)  # otherwise it would scan its folders until the whole suite ends


@pytest.fixture(scope="module")
def client(server: ServerProcess | None, standing: str, connect: Callable[[str], Client]) -> Client:
    """A client of the shared server."""
    if server is not None:
        return connect(f"127.0.0.1:{server.port}")
    made = connect(os.environ[EXTERNAL])
    made.reload(f"model_config_list {{ {standing} }}")
    return made


@dataclass
class Site:
    """A folder for the versions of one model of a test, served by the shared server."""

    client: Client
    saved: dict[str, Path]
    standing: str
    path: Path

    def place(self, model: str, version: int | str, records: Path | None = None) -> Path:
        """Install a version from one of the saved models."""
        return place(self.saved[model], self.path, version, records)

    def serve(self, *entries: str, timeout: float = CALL_S) -> Any:
        """Serve the standing models and the given entries."""
        return self.client.reload(f"model_config_list {{ {self.standing} {' '.join(entries)} }}", timeout)

    def serve_as(self, name: str, more: str = "") -> Any:
        """Serve the versions of this site under a name, with more settings for the model."""
        return self.serve(entry(name, self.path, more))


@pytest.fixture
def site(client: Client, saved: dict[str, Path], standing: str, tmp_path: Path) -> Iterator[Site]:
    """A site for versions; its models are removed at the end."""
    made = Site(client, saved, standing, tmp_path)
    yield made
    made.serve()
