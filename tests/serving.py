"""A tiny real SavedModel, bundles of it, and the real model server as a separate process."""

import hashlib
import inspect
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

from bus.broker.process import free_port, is_listening
from bus.files.cache_folder import default_cache
from bus.files.file_lock import exclusive_lock
from schemas.litert import (
    FLOAT32,
    MANIFEST_FILE,
    NETWORK_FILE,
    Manifest,
    PixelFormat,
    Variant,
    encode_manifest,
)
from schemas.messages import Release
from tests.conftest import ROOT

START_S = 300.0  # only ends a hang: loading TensorFlow on a busy machine takes long
CLASSES = ("cat", "dog")
NAMELESS = ("foreign", "pixels")
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}

# The mean colour decides: red is a cat, blue a dog, grey is undecided. `swapped` swaps cat and dog.
# The models of LIGHT have a LiteRT part, as each version of a training: their server loads no TensorFlow.
LIGHT = ("straight", "swapped", "novel")
SIDE = 16
_BUILD = """
import os
import pathlib
import sys
import tensorflow as tf

class Colour(tf.Module):
    def __init__(self, sign):
        super().__init__()
        self.weights = tf.Variable([[sign * 12.0, -sign * 12.0], [0.0, 0.0], [-sign * 12.0, sign * 12.0]])

    def mean(self, image):
        decoded = tf.io.decode_image(image, channels=3, expand_animations=False)
        pixels = tf.image.resize(decoded, [16, 16], antialias=True)
        return tf.ensure_shape(tf.reduce_mean(pixels, [0, 1]) / 255.0, [3])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def serve(self, image):
        mean = tf.map_fn(self.mean, image, fn_output_signature=tf.TensorSpec([3], tf.float32))
        return {"probabilities": tf.nn.softmax(mean @ self.weights), "embedding": mean}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def novel(self, image):
        outputs = self.serve(image)
        return {**outputs, "novelty": 4.0 * outputs["embedding"][:, 1]}

    @tf.function(input_signature=[tf.TensorSpec([1, 16, 16, 3], tf.float32, name="pixels")])
    def network(self, pixels):
        mean = tf.reduce_mean(pixels, [1, 2])
        outputs = {"probabilities": tf.nn.softmax(mean @ self.weights), "embedding": mean}
        return outputs | ({"novelty": 4.0 * mean[:, 1]} if self.tells_novelty else {})

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def flat(self, image):
        return {"probabilities": tf.zeros(tf.shape(image)) + 0.0 * self.weights[0, 0]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def refuse(self, image):
        return self.serve(tf.io.decode_base64(image))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="photos")])
    def foreign(self, photos):
        mean = tf.map_fn(self.mean, photos, fn_output_signature=tf.TensorSpec([3], tf.float32))
        return {"logits": mean @ self.weights}

    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32, name="x")])
    def pixels(self, x):
        return {"output_0": tf.reduce_mean(x, [1, 2]) @ self.weights}

    def thumbnail(self, image):
        shape = tf.shape(tf.io.decode_image(image, channels=3, expand_animations=False))
        with tf.control_dependencies([tf.debugging.assert_equal(shape, [16, 16, 3])]):
            return self.mean(image)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def pick(self, image):
        mean = tf.map_fn(self.thumbnail, image, fn_output_signature=tf.TensorSpec([3], tf.float32))
        return {"probabilities": tf.nn.softmax(mean @ self.weights)}

    def is_green(self, image):
        mean = self.mean(image)
        return mean[1] > 2.0 * tf.maximum(mean[0], mean[2])

    def abort(self):
        with tf.control_dependencies([tf.raw_ops.Abort(error_msg="a green image")]):
            return tf.constant(0.0)

    def deadly_mean(self, image):
        return self.mean(image) + tf.cond(self.is_green(image), self.abort, lambda: tf.constant(0.0))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def die(self, image):
        mean = tf.map_fn(self.deadly_mean, image, fn_output_signature=tf.TensorSpec([3], tf.float32))
        return {"probabilities": tf.nn.softmax(mean @ self.weights)}

class Stalling(Colour):
    def stall(self):
        return tf.cast(tf.strings.length(tf.io.read_file(self.stalled.asset_path)), tf.float32)

    def stalling_mean(self, image):
        return self.mean(image) + tf.cond(self.is_green(image), self.stall, lambda: tf.constant(0.0))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def hang(self, image):
        mean = tf.map_fn(self.stalling_mean, image, fn_output_signature=tf.TensorSpec([3], tf.float32))
        return {"probabilities": tf.nn.softmax(mean @ self.weights)}

signs = {"straight": 1.0, "swapped": -1.0, "flat": 1.0, "refusing": 1.0, "picky": 1.0, "novel": 1.0}
signs |= {"deadly": 1.0, "stalling": 1.0, "foreign": 1.0, "pixels": 1.0}
pathlib.Path(sys.argv[1], "stalled").write_text("")
for name, sign in signs.items():
    colour = (Stalling if name == "stalling" else Colour)(sign)
    if name == "stalling":
        colour.stalled = tf.saved_model.Asset(f"{sys.argv[1]}/stalled")
    special = {"flat": colour.flat, "refusing": colour.refuse, "picky": colour.pick, "novel": colour.novel}
    special |= {"foreign": colour.foreign, "pixels": colour.pixels}
    special |= {"deadly": colour.die, "stalling": getattr(colour, "hang", None)}
    colour.tells_novelty = name == "novel"
    signature = special.get(name, colour.serve)
    tf.saved_model.save(colour, f"{sys.argv[1]}/{name}", signatures={"serving_default": signature})
    if name in sys.argv[2:]:
        network = [colour.network.get_concrete_function()]
        converted = tf.lite.TFLiteConverter.from_concrete_functions(network, colour).convert()
        part = pathlib.Path(sys.argv[1], name, "assets.extra", "network.tflite")
        part.parent.mkdir()
        part.write_bytes(converted)
os.unlink(f"{sys.argv[1]}/stalled")
"""


@cache
def saved_models() -> Path:
    """Return the folder of the SavedModels; they are built once per machine. Do not change them.

    `straight` and `swapped` work, and so does `novel`, whose novelty is high for green and grey images; these
    three have a LiteRT part.
    `flat` has an output of the wrong rank, `refusing` refuses every image, `picky` every image that does not
    have the size of the smoke test's image. `foreign` takes `photos` and gives `logits`, `pixels` takes
    tensors; both do not name their classes. `broken` cannot be loaded. A green image ends the process of
    `deadly`, and occupies `stalling` until its asset `stalled`, made a named pipe, is opened for writing.
    """
    content = f"{metadata.version('tensorflow')} {_BUILD} {LIGHT} {inspect.getsource(_build)}"
    folder = default_cache() / "test-models" / hashlib.sha256(content.encode()).hexdigest()[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Parallel test processes need the same models: one builds them, the others wait.
    with exclusive_lock(folder.parent / "lock", timeout_s=START_S):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                _build(Path(scratch, "models")).rename(folder)
    return folder


def _build(folder: Path) -> Path:
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, str(folder), *LIGHT],
        env=dict(os.environ) | QUIET,
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    form, variant = PixelFormat(SIDE, SIDE, 0.0, 255.0), Variant(FLOAT32, (NETWORK_FILE.name,))
    manifest = encode_manifest(Manifest("serving_default", (variant,), form))
    for name in LIGHT:
        (folder / name / MANIFEST_FILE).write_bytes(manifest)
    (folder / "broken").mkdir()
    (folder / "broken/saved_model.pb").write_bytes(b"no protocol buffer at all")
    for model in folder.iterdir():
        if model.name in NAMELESS:
            continue
        (model / "assets").mkdir(exist_ok=True)
        (model / "assets/classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    return folder


def place(model: str, base: Path, version: int) -> None:
    """Install a version as a release does: copy it under another name, then rename it."""
    base.mkdir(parents=True, exist_ok=True)
    shutil.copytree(saved_models() / model, base / f"tmp-{version}")
    (base / f"tmp-{version}").rename(base / str(version))


def pack(model: Path, bundle: Path) -> Path:
    """Pack a SavedModel's folder as a bundle."""
    with tarfile.open(bundle, "w") as archive:
        for path in sorted(model.rglob("*")):
            archive.add(path, str(path.relative_to(model)), recursive=False)
    return bundle


def tar_of(bundle: Path, members: Sequence[tuple[tarfile.TarInfo | str, bytes]]) -> Path:
    """Write a tar of the given members, which may be hostile."""
    with tarfile.open(bundle, "w") as archive:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return bundle


def release_of(
    bundle: Path, version: int, *, node: str = "edge-1", model: str = "pets", **changes: object
) -> Release:
    """Return the release of a bundle; `changes` override its fields."""
    content = bundle.read_bytes()
    facts: dict[str, object] = {
        "node": node,
        "model": model,
        "version": version,
        "url": bundle.as_uri(),
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "classes": list(CLASSES),
        "released_at_ms": 1,
    }
    return Release(**(facts | changes))  # type: ignore[arg-type]  # fields of Release


class ModelServer:
    """`python -m edge.modelserver` on a port that it keeps through restarts.

    Args:
        base: Folder with a folder of versions for each model.
        names: The models.
        rpc_threads: Calls that it answers at the same time.
    """

    def __init__(self, base: Path, *names: str, rpc_threads: int = 4) -> None:
        self.base = base
        self._rpc_threads = rpc_threads
        self.port = free_port()
        self._names = names
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Its address, for gRPC."""
        return f"127.0.0.1:{self.port}"

    def launch(self) -> None:
        """Start it without waiting; its port opens when each model has an available version."""
        entries = [
            f'config {{ name: "{name}" base_path: "{self.base / name}" model_platform: "tensorflow" }}'
            for name in self._names
        ]
        for name in self._names:
            (self.base / name).mkdir(parents=True, exist_ok=True)
        config = self.base / "models.config"
        config.write_text(f"model_config_list {{ {' '.join(entries)} }}", encoding="utf-8")
        with (self.base / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "edge.modelserver",
                    f"--port={self.port}",
                    f"--model_config_file={config}",
                    "--file_system_poll_wait_seconds=0.05",
                    "--max_num_load_retries=0",
                    f"--grpc_max_threads={self._rpc_threads}",
                ],
                cwd=ROOT,
                env=dict(os.environ) | QUIET,
                stderr=log,
                stdout=log,
            )

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.launch()
        deadline = time.monotonic() + START_S
        while not is_listening(self.port):
            assert self._process is not None
            assert self._process.poll() is None, (self.base / "server.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the model server did not start"
            time.sleep(0.05)

    def pause(self) -> None:
        """Suspend it: connections stay open and get no answer."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume it."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait until it ends and return its exit code."""
        assert self._process is not None
        return self._process.wait()

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
