import asyncio
import struct
import subprocess
import sys
from array import array

import grpc
import pytest

from bus.broker.process import free_port
from edge.serving import client
from edge.serving.client import (
    BadInputError,
    ModelMissingError,
    ModelUnavailableError,
    ModelUnfitError,
    Predictor,
    served_model,
)
from schemas.messages import ServedModel
from tests.conftest import ROOT
from tests.nodes import photo, truncated
from tests.serving import place

_DT_DOUBLE = 2


async def test_each_image_gets_its_row(serving):
    """A batch comes back in order, with version, probabilities and embeddings."""
    async with Predictor(serving.address, "pets") as predictor:
        said = await predictor.predict([photo(1, "red"), photo(2, "blue"), photo(3, "red")])
    assert said.version == 1
    assert [row[0] > 0.9 for row in said.probabilities] == [True, False, True]
    assert [len(row) for row in said.embeddings] == [12, 12, 12]
    red, _, blue = struct.unpack("<3f", said.embeddings[0])
    assert red > blue


async def test_a_novelty_is_read_where_the_model_says_it(serving):
    """Each image gets its own; a model that says none, as those of earlier versions, gives None."""
    async with Predictor(serving.address, "novel") as predictor:
        said = await predictor.predict([photo(1, "red"), photo(2, "grey")])
        assert [novelty > 1 for novelty in said.novelties] == [False, True]
    async with Predictor(serving.address, "pets") as predictor:
        assert (await predictor.predict([photo(1)])).novelties == [None]


async def test_refused_images_are_bad_input(serving):
    """INVALID_ARGUMENT is the photo's fault and not a reason to wait."""
    async with Predictor(serving.address, "pets") as predictor:
        with pytest.raises(BadInputError, match="INVALID_ARGUMENT"):
            await predictor.predict([photo(1), truncated(photo(2))])


async def test_whatever_may_pass_is_unavailable(serving, own_serving):
    """No server, no such model, no such version, no answer in time: the same call may succeed later."""
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


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_has_a_meaning(code):
    """INVALID_ARGUMENT alone blames the input; nothing a server can say stops the edge."""
    refusal = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="why")
    meaning = Predictor("host:1", "pets")._meaning(refusal)
    blames_input = code is grpc.StatusCode.INVALID_ARGUMENT
    assert isinstance(meaning, BadInputError if blames_input else ModelUnavailableError)
    nobody_there = code.name in {"NOT_FOUND", "UNAVAILABLE", "CANCELLED"}
    assert isinstance(meaning, ModelMissingError) == nobody_there
    assert "why" in str(meaning)


async def test_an_answer_of_the_wrong_shape_is_the_models_fault(serving):
    """A model without a row of probabilities for each image is unfit, whatever the photo."""
    async with Predictor(serving.address, "flat") as predictor:
        with pytest.raises(ModelUnfitError, match=r"shape \[1\]"):
            await predictor.predict([photo(1)])
        with pytest.raises(ModelUnfitError):
            await predictor.smoke_test()


async def test_a_good_model_passes_the_trial(serving):
    """The picture of the trial is one that a good model takes."""
    async with Predictor(serving.address, "pets") as predictor:
        assert (await predictor.smoke_test()).version == 1
        assert (await predictor.smoke_test(1)).version == 1


def tensor(shape: list[int], values=(), content: bytes = b"", dtype: int = client._DT_FLOAT):
    """Return a tensor as a server may fill it."""
    made = client._predict_pb2.PredictResponse().outputs["x"]
    made.dtype, made.tensor_content = dtype, content
    for size in shape:
        made.tensor_shape.dim.add().size = size
    made.float_val.extend(values)
    return made


def test_both_ways_to_fill_a_tensor_are_read():
    """`float_val`, `tensor_content`, and the last value standing for the rest give the same rows."""
    rows = [array("f", [1, 2, 3]), array("f", [4, 4, 4])]
    assert client._rows(tensor([2, 3], [1, 2, 3, 4, 4, 4]), 2) == rows
    assert client._rows(tensor([2, 3], content=struct.pack("<6f", 1, 2, 3, 4, 4, 4)), 2) == rows
    assert client._rows(tensor([2, 3], [1, 2, 3, 4]), 2) == rows
    assert client._rows(tensor([1, 2]), 1) == [array("f", [0, 0])]


@pytest.mark.parametrize(
    "odd",
    [
        tensor([3], [1, 2, 3]),
        tensor([2, 3], [1] * 6),
        tensor([1, 1, 3], [1] * 3),
        tensor([], [1]),
        tensor([1, 3], content=b"12345"),
        tensor([1, 1], content=bytes(8), dtype=_DT_DOUBLE),
    ],
)
def test_no_odd_tensor_passes_for_probabilities(odd):
    """Another rank, number of rows, type or length is refused instead of misread."""
    with pytest.raises(ValueError, match=r"shape|multiple"):
        client._rows(odd, 1)


async def test_a_status_question_has_an_answer_in_any_case(serving):
    """The served version, one that is not there and a server that is not there are all answers."""
    async with Predictor(serving.address, "pets") as predictor:
        assert await predictor.served() == ServedModel(name="pets", version=1, state="available")
        assert (await predictor.served(9)).state == "absent"
    async with Predictor(f"127.0.0.1:{free_port()}", "pets", timeout_s=5) as predictor:
        away = await predictor.served()
    assert away.state == "absent"
    assert away.reason


async def test_a_version_that_does_not_load_is_failed(own_serving):
    """A broken version is reported with the server's reason, the one that serves as available."""
    own_serving.start()
    place("broken", own_serving.base / "pets", 2)
    async with Predictor(own_serving.address, "pets") as predictor, asyncio.timeout(20):
        while (served := await predictor.served(2)).state != "failed":
            assert served.state in ("absent", "loading")
        assert served.reason
        assert await predictor.served() == ServedModel(name="pets", version=1, state="available")


def test_no_version_at_all_is_absent():
    """A server that knows the model and has no version of it says so."""
    assert served_model("pets", []).state == "absent"


def test_a_fresh_interpreter_loads_no_tensorflow():
    """The whole edge, gRPC stubs included, leaves TensorFlow out of the process."""
    script = (
        "import sys, edge.service; loaded = [name for name in sys.modules if name.split('.')[0] in "
        "('tensorflow', 'keras', 'numpy')]; print(loaded); "
        "assert not any(m in loaded for m in ('tensorflow', 'keras', 'tensorflow.python', 'numpy'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
