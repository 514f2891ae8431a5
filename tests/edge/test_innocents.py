"""G4: a photo is not rejected because processes are killed while it happens to be classified alone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from bus.config import Broker
from edge.config import EdgeConfig
from edge.inference.alone import controls
from edge.inference.attempts import MAX_ATTEMPTS
from edge.serving import messages_pb2 as messages
from tests.conftest import eventually
from tests.nodes import Observer, counted, edge_config, edge_process, enveloped, photo, photo_id, station
from tests.serving import START_S, place

PHOTO = enveloped(1, photo(1), "pi-1")
_FLOAT = 1
_AVAILABLE = 30


class CallServer:
    """TensorFlow Serving's gRPC API, with a script of which calls find the server dead.

    Args:
        dies: Given the number of a Predict call since the last death, from 1; whether the server dies in it.
    """

    def __init__(self, dies: Callable[[int], bool]) -> None:
        self.dies = dies
        self.deaths = 0
        self._calls = 0

    async def predict(
        self, request: messages.PredictRequest, context: grpc.aio.ServicerContext
    ) -> messages.PredictResponse:
        """Answer `cat` for each image, or as the client hears of a server that was killed."""
        self._calls += 1
        if self.dies(self._calls):
            self._calls = 0
            self.deaths += 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        count = len(request.inputs["image"].string_val)
        response = messages.PredictResponse()
        response.model_spec.version.value = 1
        scores = response.outputs["probabilities"]
        scores.dtype = _FLOAT
        for size in (count, 2):
            scores.tensor_shape.dim.add().size = size
        scores.float_val.extend([0.9, 0.1] * count)
        return response

    async def status(self, *_: object) -> messages.GetModelStatusResponse:
        """Tell that version 1 is available."""
        response = messages.GetModelStatusResponse()
        response.model_version_status.add(version=1, state=_AVAILABLE)
        return response


@asynccontextmanager
async def listening(server: CallServer) -> AsyncIterator[str]:
    """Serve for the length of a block; yields the address."""
    grpc_server = grpc.aio.server()
    for service, method, function, request in (
        ("PredictionService", "Predict", server.predict, messages.PredictRequest),
        ("ModelService", "GetModelStatus", server.status, messages.GetModelStatusRequest),
    ):
        handler = grpc.unary_unary_rpc_method_handler(
            function,
            request_deserializer=request.FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )
        grpc_server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(f"tensorflow.serving.{service}", {method: handler}),)
        )
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    await grpc_server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await grpc_server.stop(None)


def configured(broker: Broker, serving: str, tmp_path: Path) -> EdgeConfig:
    place("straight", tmp_path / "models/pets", 1)
    return edge_config(broker, serving, tmp_path, models_dir=str(tmp_path / "models"))


async def test_g4_a_server_that_dies_at_every_second_call_rejects_no_photo(address, tmp_path):
    """The check before a photo passes each time, and each time the server dies during the photo."""
    server = CallServer(lambda _: False)
    async with listening(server) as serving:
        async with station(configured(address, serving, tmp_path)) as seen:
            server.dies = lambda call: server.deaths == 0 or call == 2
            await seen.send(PHOTO, "pi-1")
            await eventually(lambda: server.deaths >= 4 * MAX_ATTEMPTS, within_s=START_S)
            server.dies = lambda _: False
            assert (await seen.answer(photo_id(1), "pi-1", within_s=START_S)).status == "ok"
        assert (await counted(seen))["photo.failed_alone"] == 1


async def test_g4_an_edge_that_is_killed_at_each_call_rejects_no_photo(address, tmp_path):
    """After the first time, the kill finds the known-good images before the photo."""
    server = CallServer(lambda _: False)
    async with listening(server) as serving, Observer(address).watching() as seen:
        config = configured(address, serving, tmp_path)
        await seen.bus.connected()
        with edge_process(config, tmp_path) as edge:
            for run in range(MAX_ATTEMPTS + 1):
                edge.start(at="edge.predicted")
                if run == 0:
                    await seen.status("online", within_s=START_S)
                    await seen.send(PHOTO, "pi-1")
                await asyncio.to_thread(edge.wait)
            edge.start()
            assert (await seen.answer(photo_id(1), "pi-1", within_s=START_S)).status == "ok"
            assert edge.log.count("photo.tried_alone") == 2
            edge.stop()


@pytest.mark.parametrize("drawn", [0.0, 1.0])
def test_each_further_attempt_follows_more_known_good_images(drawn):
    """So that what kills at random hits the photo again only with a small probability."""
    numbers = [controls(attempts, drawn) for attempts in range(MAX_ATTEMPTS)]
    assert numbers[0] == 1
    assert numbers[1] >= 8
    assert numbers[2] >= 32
