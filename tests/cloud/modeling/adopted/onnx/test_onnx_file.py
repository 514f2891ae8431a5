"""An `.onnx` file as a network of ours: its answers are those of ONNX's reference implementation."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from cloud.export.litert import convert_network
from cloud.export.saved_model import warmup_photos
from cloud.modeling.adopted import AdoptionError, ForeignModel, ModelSource, load_model, parse_preprocessing
from cloud.modeling.arrays import softmax
from cloud.modeling.backbones import preprocess

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google|onnx).*")

CLASSES = ("cat", "dog", "owl")
SIDE = 16
MEAN, DEVIATION = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


class Builder:
    """Writes an ONNX graph, node by node."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.draw = np.random.default_rng(0)

    def constant(self, values: Any) -> str:
        name = f"constant-{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def weight(self, *shape: int) -> str:
        return self.constant(self.draw.normal(0, 0.5, shape).astype(np.float32))

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"{operator}-{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def save(self, path: Path, output: str, batch: str | int, opset: int = 17) -> Path:
        value, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
        graph = onnx.helper.make_graph(
            self.nodes,
            "classifier",
            [value("photos", kind, [batch, 3, SIDE, SIDE])],
            [value(output, kind, [batch, 3])],
            self.constants,
        )
        versions = [onnx.helper.make_opsetid("", opset)]
        onnx.save(onnx.helper.make_model(graph, opset_imports=versions, ir_version=8), path)
        return path


def classifier(path: Path, batch: str | int) -> Path:
    """A small network with the layers of a mobile one and of a transformer, as PyTorch exports them."""
    net = Builder()
    add, weight, constant = net.add, net.weight, net.constant
    images = add("Conv", "photos", weight(8, 3, 3, 3), weight(8), strides=[2, 2], pads=[1, 1, 1, 1])
    ones = constant(np.full(8, 1.5, np.float32))
    images = add("BatchNormalization", images, ones, weight(8), weight(8), ones)
    images = add("Clip", images, constant(np.float32(0)), constant(np.float32(6)))
    deep = add("Conv", images, weight(16, 1, 3, 3), group=8, pads=[1, 1, 1, 1])
    gate = add("Conv", add("GlobalAveragePool", deep), weight(16, 16, 1, 1), weight(16))
    deep = add("Mul", deep, add("HardSigmoid", gate, alpha=1 / 6, beta=0.5))
    deep = add("Conv", add("HardSwish", deep), weight(16, 4, 3, 3), group=4, pads=[0, 1, 2, 1])
    images = add("Concat", add("Mul", deep, weight(16, 1, 1)), images, axis=1)
    images = add("MaxPool", images, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    images = add("AveragePool", images, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    rows = add("Transpose", add("ReduceMean", images, axes=[2], keepdims=0), perm=[0, 2, 1])
    rows = add("LayerNormalization", rows, weight(24), weight(24))
    share = add("Softmax", add("MatMul", rows, add("Transpose", rows, perm=[0, 2, 1])), axis=-1)
    rows = add("MatMul", share, rows)
    if batch == 1:
        flat = add("Reshape", rows, constant(np.array([1, -1], np.int64)))
    else:
        size = add("Gather", add("Shape", rows), constant(np.int64(0)), axis=0)
        size = add("Unsqueeze", size, constant(np.array([0], np.int64)))
        flat = add("Reshape", rows, add("Concat", size, constant(np.array([-1], np.int64)), axis=0))
    scores = add("Gemm", flat, weight(3, 24 * SIDE // 4), weight(3), transB=1)
    return net.save(path, add("Softmax", scores, axis=1), batch)


def load(path: Path, named: str = "imagenet") -> ForeignModel:
    return load_model(ModelSource(path, CLASSES, warmup_photos(2), parse_preprocessing(named)))


@pytest.mark.parametrize("batch", ["N", 1])
def test_answers_are_those_of_the_reference(batch: str | int, tmp_path: Path) -> None:
    """Any batch is answered as ONNX's reference answers each photo, also by a file that takes one photo."""
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415

    path = classifier(tmp_path / "m.onnx", batch)
    model = load(path)
    images = preprocess(model.backbone, tf.constant(warmup_photos(3)))
    answers = softmax(model.head.logits(np.asarray(model.network(images))))
    units = ((images.numpy() - MEAN) / DEVIATION).transpose(0, 3, 1, 2).astype(np.float32)
    evaluator = ReferenceEvaluator(str(path))
    theirs = np.concatenate([evaluator.run(None, {"photos": one[np.newaxis]})[0] for one in units])
    assert np.ptp(theirs) > 0.1, "the answers differ from each other"
    assert answers == pytest.approx(theirs, abs=1e-5)
    if batch == 1:
        convert_network(model.network, lambda photo: {"embedding": model.network(photo)}, (SIDE, SIDE, 3))


def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence for: no model, an old opset, an operator or a form of it that is unknown, no package."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(AdoptionError, match=r"cannot load .*m\.onnx"):
        load(path)
    net = Builder()
    net.save(path, net.add("ReduceMean", "photos", axes=[2, 3], keepdims=0), "N", opset=12)
    with pytest.raises(AdoptionError, match="opset 12; 13 or later is needed"):
        load(path)
    net = Builder()
    net.save(path, net.add("ReduceMean", net.add("Sin", "photos"), axes=[2, 3], keepdims=0), "N")
    with pytest.raises(AdoptionError, match="no form in TensorFlow's graph is known for ONNX's Sin"):
        load(path)
    net = Builder()
    pooled = net.add("MaxPool", "photos", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    net.save(path, net.add("ReduceMean", pooled, axes=[2, 3], keepdims=0), "N")
    with pytest.raises(AdoptionError, match="pooling with ceil_mode"):
        load(path)
    for batch in ("N", 1):
        net = Builder()
        net.save(path, net.add("Magic", "photos", domain="com.example"), batch)
        with pytest.raises(AdoptionError, match=r"ONNX's com\.example\.Magic; convert the model"):
            load(path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(AdoptionError, match=r"'onnx' is not installed; install it with: .*\[onnx\]"):
        load(path)
