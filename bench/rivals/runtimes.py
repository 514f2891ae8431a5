"""Measure other runtimes alternately: `python -m bench.rivals.runtimes FOLDER`, for `bench.runtimes`.

FOLDER has the files of `bench.runtimes`; answers and processor times are written there. With `--footprint
FILE` it does what a server without TensorFlow would do: it loads one network, classifies 16 photos and prints
time and memory.
"""

import argparse
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]
Decoder = Callable[[list[bytes]], Array]
Network = Callable[[Array], Array]

BATCHES = (1, 16)
_TENSORFLOW = "TensorFlow"
_TURN_PHOTOS = 32


def pillow(plan: dict[str, float]) -> Decoder:
    """Decode, resize and normalise without TensorFlow."""
    size = int(plan["size_px"])

    def decode(photos: list[bytes]) -> Array:
        images = np.empty((len(photos), size, size, 3), np.float32)
        for at, photo in enumerate(photos):
            image = Image.open(io.BytesIO(photo)).convert("RGB")
            images[at] = image.resize((size, size), Image.Resampling.BILINEAR)
        return (images - plan["offset"]) / plan["scale"]

    return decode


def lite(path: Path) -> Network:
    """Return a network in LiteRT, one photo at a time on one thread."""
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415  # a footprint has one runtime

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    taken = interpreter.get_input_details()[0]["index"]
    given = interpreter.get_output_details()[0]["index"]

    def run(images: Array) -> Array:
        answers = []
        for at in range(len(images)):
            interpreter.set_tensor(taken, images[at : at + 1])
            interpreter.invoke()
            answers.append(interpreter.get_tensor(given))
        return np.concatenate(answers)

    return run


def onnx(path: Path) -> Network:
    """Return a network in ONNX Runtime, on one thread."""
    import onnxruntime  # noqa: PLC0415  # as above

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(None, {name: images})[0])


def tensorflow(
    directory: Path, signature: str, output: str, threads: int = 0
) -> Callable[[list[bytes]], Array]:
    """Return a signature of a SavedModel as the model server runs it; 0 threads: TensorFlow decides."""
    import tensorflow as tf  # noqa: PLC0415  # as above

    v1 = tf.compat.v1
    config = v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    graph = tf.Graph()
    with graph.as_default():
        session = v1.Session(graph=graph, config=config)
        meta = v1.saved_model.loader.load(session, [tf.saved_model.SERVING], str(directory))
    asked = meta.signature_def[signature]
    taken, given = next(iter(asked.inputs.values())).name, asked.outputs[output].name
    return lambda photos: np.asarray(session.run(given, {taken: photos}))


def convert(folder: Path, images: Array) -> None:
    """Write the network for ONNX Runtime, in float32 and int8."""
    import tensorflow as tf  # noqa: PLC0415  # as above
    import tf2onnx  # noqa: PLC0415  # as above
    from keras.src.export.tf2onnx_lib import patch_tf2onnx  # noqa: PLC0415  # as above
    from onnxruntime import quantization  # noqa: PLC0415  # as above

    patch_tf2onnx()  # tf2onnx 1.17 uses names that NumPy 2 has not
    network = tf.saved_model.load(str(folder / "network"))
    spec = [tf.TensorSpec([None, *images.shape[1:]], tf.float32, name="pixels")]
    plain, prepared = folder / "float32.onnx", folder / "prepared.onnx"
    tf2onnx.convert.from_function(network.embed, input_signature=spec, opset=17, output_path=str(plain))
    quantization.quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)

    class Calibration(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[Array] = iter(images)

        def get_next(self) -> dict[str, Array] | None:
            image = next(self.left, None)
            return None if image is None else {"pixels": image[None]}

    quantization.quantize_static(
        str(prepared), str(folder / "int8.onnx"), Calibration(), per_channel=True, reduce_range=True
    )  # reduced: without VNNI the products of 8 bits overflow


def contenders(folder: Path, plan: dict[str, float]) -> dict[str, Callable[[list[bytes]], Array]]:
    """Return the functions from encoded photos to embeddings by name."""
    served = folder / "served/1"
    decoders = {"TensorFlow": tensorflow(served, "decode", "pixels"), "Pillow": pillow(plan)}
    networks = {
        "LiteRT float32": lite(folder / "float32.tflite"),
        "LiteRT int8 weights": lite(folder / "dynamic.tflite"),
        "LiteRT int8": lite(folder / "int8.tflite"),
        "ONNX Runtime float32": onnx(folder / "float32.onnx"),
        "ONNX Runtime int8": onnx(folder / "int8.onnx"),
    }
    found = {
        _TENSORFLOW: tensorflow(served, "serving_default", "embedding"),
        f"{_TENSORFLOW}, one thread": tensorflow(served, "serving_default", "embedding", 1),
    }
    for name, network in networks.items():
        for decoder, decode in decoders.items():
            found[f"{name}, decoded by {decoder}"] = lambda photos, decode=decode, network=network: network(
                decode(photos)
            )
    return found


def spent_ms(run: Callable[[list[bytes]], Array], photos: list[bytes], batch: int) -> float:
    """Return the processor milliseconds of this process per photo."""
    run(photos[:batch])
    began_s = time.process_time()
    for at in range(0, len(photos), batch):
        run(photos[at : at + batch])
    return 1000 * (time.process_time() - began_s) / len(photos)


def read(paths: list[str]) -> list[bytes]:
    """Read photos."""
    return [Path(path).read_bytes() for path in paths]


def measure(folder: Path, rounds: int) -> None:
    """Answer what is judged, and time each contender once a round."""
    plan = json.loads((folder / "plan.json").read_text())
    decode = tensorflow(folder / "served/1", "decode", "pixels")
    convert(folder, decode(read(plan["calibrating"])))
    ways, judged = contenders(folder, plan), read(plan["judged"])
    answers = {
        name: np.concatenate([run(judged[at : at + 16]) for at in range(0, len(judged), 16)])
        for name, run in ways.items()
    }
    np.savez(folder / "answers.npz", **answers)
    times = [
        {"way": name, "photos": kind, "batch": batch, "ms": spent_ms(run, read(paths)[:_TURN_PHOTOS], batch)}
        for _ in range(rounds)
        for kind, paths in plan["timed"].items()
        for batch in BATCHES
        for name, run in ways.items()
    ]
    (folder / "times.json").write_text(json.dumps(times))


def footprint(folder: Path, network: Path) -> None:
    """Do what a server without TensorFlow would until its first answer."""
    import grpc  # noqa: F401, PLC0415  # a server has it

    plan = json.loads((folder / "plan.json").read_text())
    run = (lite if network.suffix == ".tflite" else onnx)(network)
    run(pillow(plan)(read(plan["judged"])[:16]))
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    age_s = float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    print(json.dumps({"resident_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6, "seconds": age_s}))


def main() -> None:
    """Measure, or take a footprint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--footprint", type=Path)
    arguments = parser.parse_args()
    if arguments.footprint:
        footprint(arguments.folder, arguments.footprint)
    else:
        measure(arguments.folder, arguments.rounds)


if __name__ == "__main__":
    main()
