"""Models for benchmarks: `python -m bench.models NAME DIR` writes one as a SavedModel of two classes.

It is a separate process because it loads TensorFlow. `null` answers without decoding the photo. A backbone
has its pretrained weights if it has some, and a random head: the answers do not matter, the cost is the same.
With `+litert` behind its name it has the LiteRT variants too.
"""

import asyncio
import os
import shutil
import sys
from pathlib import Path

from bench.photos import pictures
from bench.setting import CACHE

CLASSES = ("cat", "dog")
MODEL = "pets"


async def saved_model(name: str) -> Path:
    """Return the folder of a model in the cache; create it if it is missing."""
    directory = CACHE / "models" / name / "1"
    if not await asyncio.to_thread(directory.exists):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.models", name, str(directory),
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )  # fmt: skip
        if await process.wait():
            raise RuntimeError(f"cannot write the model {name}: exit code {process.returncode}")
    return directory


async def place(name: str, base: Path, version: int = 1) -> None:
    """Install a model as a version."""
    source = await saved_model(name)
    await asyncio.to_thread(_copy, source, base / str(version))


def _copy(source: Path, target: Path) -> None:
    partial = target.with_name(f"tmp-{target.name}")
    shutil.copytree(source, partial)
    partial.rename(target)  # atomic: the model server must not load half of a copy


def _write_null(directory: Path) -> None:
    import tensorflow as tf  # noqa: PLC0415  # only in this subprocess

    module = tf.Module()
    module.row = tf.Variable([[0.6, 0.4]])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = tf.repeat(module.row, tf.size(image), axis=0)
        return {"probabilities": probabilities, "embedding": tf.zeros([tf.size(image), 16])}

    partial = directory.with_name(f"tmp-{directory.name}")
    tf.saved_model.save(module, str(partial), signatures={"serving_default": serve})
    (partial / "assets").mkdir(exist_ok=True)
    (partial / "assets/classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")
    partial.rename(directory)


def _write_backbone(name: str, directory: Path) -> None:
    import numpy as np  # noqa: PLC0415  # as above

    from cloud.export.saved_model import export_saved_model  # noqa: PLC0415  # as above
    from cloud.export.serving_module import Model  # noqa: PLC0415  # as above
    from cloud.export.variants import Quantization  # noqa: PLC0415  # as above
    from cloud.modeling.backbones import get_backbone  # noqa: PLC0415  # as above
    from cloud.modeling.linear_head import Head  # noqa: PLC0415  # as above
    from cloud.modeling.novelty import fit_novelty  # noqa: PLC0415  # as above

    name, _, litert = name.partition("+")
    plan, draw = get_backbone(name), np.random.default_rng(0)
    head = Head(
        kernel=draw.normal(size=(plan.embedding_dim, len(CLASSES))) * 0.1, bias=np.zeros(len(CLASSES))
    )
    novelty = fit_novelty(draw.normal(size=(40, plan.embedding_dim)))
    model = Model(plan, plan.build(), head, 1.0, CLASSES, novelty)
    quantization = Quantization(pictures(64)) if litert else None
    with export_saved_model(model, directory, tflite=bool(litert), quantization=quantization):
        pass


def main() -> None:
    """Write a model."""
    name, directory = sys.argv[1], Path(sys.argv[2])
    directory.parent.mkdir(parents=True, exist_ok=True)
    if name == "null":
        _write_null(directory)
    else:
        _write_backbone(name, directory)


if __name__ == "__main__":
    main()
