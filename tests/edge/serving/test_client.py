import asyncio
import struct
import subprocess
import sys
from array import array

import grpc
import pytest

from bus.broker.process import free_port
from edge.serving import messages_pb2 as messages
from edge.serving import tensor_rows
from edge.serving.client import (
    BadInputError,
    ModelMissingError,
    ModelOutputError,
    ModelUnavailableError,
    Predictor,
    _variant,
    to_served_model,
)
from schemas.litert import VARIANT_METADATA
from schemas.messages import ServedModel
from tests.conftest import DEADLINE_S, ROOT
from tests.nodes import photo, truncated
from tests.serving import place

_DT_DOUBLE = 2


async def test_each_image_has_its_row(serving):
    """The output of a batch is in order, with version, probabilities and embeddings."""
    async with Predictor(serving.address, "pets") as predictor:
        output = await predictor.predict([photo(1, "red"), photo(2, "blue"), photo(3, "red")])
    assert output.version == 1
    assert [row[0] > 0.9 for row in output.probabilities] == [True, False, True]
    assert [len(row) for row in output.embeddings] == [12, 12, 12]
    red, _, blue = struct.unpack("<3f", output.embeddings[0])
    assert red > blue


async def test_novelty_is_read_where_the_model_outputs_it(serving):
    """Each image has its own; it is None for a model without that output, as older ones."""
    async with Predictor(serving.address, "novel") as predictor:
        output = await predictor.predict([photo(1, "red"), photo(2, "grey")])
        assert [novelty > 1 for novelty in output.novelties] == [False, True]
    async with Predictor(serving.address, "pets") as predictor:
        assert (await predictor.predict([photo(1)])).novelties == [None]


async def test_refused_images_are_bad_input(serving):
    """INVALID_ARGUMENT is a permanent error of the photo."""
    async with Predictor(serving.address, "pets") as predictor:
        with pytest.raises(BadInputError, match="INVALID_ARGUMENT"):
            await predictor.predict([photo(1), truncated(photo(2))])


async def test_all_other_failures_are_transient(serving, own_serving):
    """An absent server, model or version, or a missed deadline: the same call may succeed later."""
    async with Predictor(f"127.0.0.1:{free_port()}", "pets", timeout_s=5) as predictor:
        with pytest.raises(ModelUnavailableError, match="UNAVAILABLE"):
            await predictor.predict([photo(1)])
    async with Predictor(serving.address, "dragons") as predictor:
        with pytest.raises(ModelUnavailableError, match="NOT_FOUND"):
            await predictor.predict([photo(1)])
    async with Predictor(serving.address, "pets") as predictor:
        with pytest.raises(ModelUnavailableError, match="NOT_FOUND"):
            await predictor.predict([photo(1)], version=9)
    own_serving.start()
    async with Predictor(own_serving.address, "pets", timeout_s=0.3) as predictor:
        own_serving.pause()
        with pytest.raises(ModelUnavailableError, match="DEADLINE_EXCEEDED"):
            await predictor.predict([photo(1)])
        own_serving.resume()


@pytest.mark.parametrize(
    ("sent", "variant"),
    [((), ""), ("int8", "int8"), ("Int 8", ""), ("", ""), ("x" * 65, ""), ("int8\n", "")],
)
def test_a_variant_has_a_name_that_the_contract_allows(sent, variant):
    """For any answer of a server: the collector would refuse a sample with another one."""
    metadata = grpc.aio.Metadata(*([(VARIANT_METADATA, sent)] if sent else []))
    assert _variant(metadata) == variant


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_grpc_status_is_mapped(code):
    """INVALID_ARGUMENT alone is the input's fault; no status of a server stops the edge."""
    refusal = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="why")
    error = Predictor("host:1", "pets")._mapped(refusal)
    bad_input = code is grpc.StatusCode.INVALID_ARGUMENT
    assert isinstance(error, BadInputError if bad_input else ModelUnavailableError)
    missing = code.name in {"NOT_FOUND", "UNAVAILABLE", "CANCELLED"}
    assert isinstance(error, ModelMissingError) == missing
    assert "why" in str(error)


async def test_an_output_of_the_wrong_shape_is_the_models_fault(serving):
    """A model without a row of probabilities for each image fails with every photo."""
    async with Predictor(serving.address, "flat") as predictor:
        with pytest.raises(ModelOutputError, match=r"shape \[1\]"):
            await predictor.predict([photo(1)])
        with pytest.raises(ModelOutputError):
            await predictor.smoke_test()


async def test_a_good_model_passes_the_smoke_test(serving):
    """A good model accepts the image of the smoke test."""
    async with Predictor(serving.address, "pets") as predictor:
        assert (await predictor.smoke_test()).version == 1
        assert (await predictor.smoke_test(1)).version == 1


def tensor(shape: list[int], values=(), content: bytes = b"", dtype: int = tensor_rows._DT_FLOAT):
    """Return a tensor, filled in one of the ways of servers."""
    made = messages.PredictResponse().outputs["x"]
    made.dtype, made.tensor_content = dtype, content
    for size in shape:
        made.tensor_shape.dim.add().size = size
    made.float_val.extend(values)
    return made


def test_both_fields_of_a_tensor_are_read():
    """`float_val`, `tensor_content` and omitted repetitions of the last value give the same rows."""
    rows = [array("f", [1, 2, 3]), array("f", [4, 4, 4])]
    assert tensor_rows.rows(tensor([2, 3], [1, 2, 3, 4, 4, 4]), 2) == rows
    assert tensor_rows.rows(tensor([2, 3], content=struct.pack("<6f", 1, 2, 3, 4, 4, 4)), 2) == rows
    assert tensor_rows.rows(tensor([2, 3], [1, 2, 3, 4]), 2) == rows
    assert tensor_rows.rows(tensor([1, 2]), 1) == [array("f", [0, 0])]


@pytest.mark.parametrize(
    "wrong",
    [
        tensor([3], [1, 2, 3]),
        tensor([2, 3], [1] * 6),
        tensor([1, 1, 3], [1] * 3),
        tensor([], [1]),
        tensor([1, 3], content=b"12345"),
        tensor([1, 1], content=bytes(8), dtype=_DT_DOUBLE),
    ],
)
def test_a_tensor_of_the_wrong_form_is_refused(wrong):
    """Another rank, number of rows, type or length is an error, never misread."""
    with pytest.raises(ValueError, match=r"shape|multiple"):
        tensor_rows.rows(wrong, 1)


async def test_model_status_does_not_raise(serving):
    """A served version, an unknown version and an absent server each give a status."""
    async with Predictor(serving.address, "pets") as predictor:
        assert await predictor.model_status() == ServedModel(name="pets", version=1, state="available")
        assert (await predictor.model_status(9)).state == "absent"
    async with Predictor(f"127.0.0.1:{free_port()}", "pets", timeout_s=5) as predictor:
        absent = await predictor.model_status()
    assert absent.state == "absent"
    assert absent.reason


async def test_a_version_that_cannot_be_loaded_is_failed(own_serving):
    """A broken version has the server's reason, and the version that serves is available."""
    own_serving.start()
    place("broken", own_serving.base / "pets", 2)
    async with Predictor(own_serving.address, "pets") as predictor, asyncio.timeout(DEADLINE_S):
        while (served := await predictor.model_status(2)).state != "failed":
            assert served.state in ("absent", "loading")
        assert served.reason
        assert await predictor.model_status() == ServedModel(name="pets", version=1, state="available")


def test_no_version_at_all_is_absent():
    """The server knows the model and has no version of it."""
    assert to_served_model("pets", []).state == "absent"


def test_a_fresh_interpreter_loads_no_tensorflow():
    """The whole edge, gRPC stubs included, leaves out TensorFlow, and what few sites need."""
    script = (
        "import sys, edge.service; from schemas.distribution import version; version(); "
        "loaded = {'tensorflow', 'keras', 'numpy', 'fsspec', 'importlib.metadata'} & sys.modules.keys(); "
        "sys.exit(', '.join(loaded) if loaded else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
