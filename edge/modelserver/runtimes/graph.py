"""Run the graph of a version in TensorFlow; the only module of the server that uses TensorFlow itself.

Importing it loads TensorFlow: call `tensorflow_package.prepare` first.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow.python.client import pywrap_tf_session, session
from tensorflow.python.framework import errors_impl, ops
from tensorflow.python.saved_model import loader_impl

from edge.modelserver.runtimes.base import SERVING_SIGNATURE, no_saved_model, signature_of
from edge.modelserver.runtimes.decoding_memory import DecodingMemory, graph_bytes
from edge.modelserver.runtimes.network import Network, find_network
from edge.modelserver.runtimes.run_slots import POOLS, run_slot
from edge.modelserver.status import Code, ServingError
from edge.modelserver.tensors import Array
from edge.serving import messages_pb2 as messages
from schemas.litert import DECODE_SIGNATURE, PIXELS_TENSOR

SERVE_TAG = "serve"

logging.getLogger("tensorflow").setLevel(
    logging.ERROR
)  # the V1 loader warns on each load that it is deprecated


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Settings of a session.

    Args:
        intra_op_parallelism: threads of one operation; 0 lets TensorFlow choose.
        inter_op_parallelism: operations that run concurrently; 0 lets TensorFlow choose.
        prefer_tflite: run the network in LiteRT if the version includes one.
    """

    intra_op_parallelism: int = 0
    inter_op_parallelism: int = 0
    prefer_tflite: bool = False


@dataclass(frozen=True, slots=True)
class TensorFlowRuntime:
    """Loads the SavedModel of a version as tensorflow_model_server does.

    Args:
        options: settings of each session.
        memory: for decoding; None: there is enough.
    """

    options: SessionOptions = SessionOptions()
    memory: DecodingMemory | None = None

    def load(self, path: Path) -> "GraphProgram":
        """Load the SavedModel in a directory.

        Raises:
            ServingError: the SavedModel or its network cannot be loaded.
        """
        # A graph and session per version, so that closing one frees its memory and leaves the others alone.
        graph = ops.Graph()
        tf_session = session.Session(
            graph=graph,
            config=config_pb2.ConfigProto(
                intra_op_parallelism_threads=self.options.intra_op_parallelism,
                session_inter_op_thread_pool=_thread_pools(self.options.inter_op_parallelism),
            ),
        )
        try:
            with graph.as_default():
                meta_graph = loader_impl.load(tf_session, [SERVE_TAG], str(path))
            network = None
            if self.options.prefer_tflite:
                network = find_network(path, meta_graph.signature_def, self.options.intra_op_parallelism)
            return GraphProgram(meta_graph, tf_session, network, self.memory)
        except BaseException as error:
            tf_session.close()
            if isinstance(error, Exception):
                raise _load_error(error, path) from error
            raise


class GraphProgram:
    """A SavedModel in a session; thread-safe.

    Args:
        meta_graph: as read by the loader.
        tf_session: session with the variables.
        network: LiteRT network that takes the output of the signature `decode`; None: the graph answers.
        memory: for decoding; None: there is enough.
    """

    def __init__(
        self,
        meta_graph: meta_graph_pb2.MetaGraphDef,
        tf_session: session.Session,
        network: Network | None = None,
        memory: DecodingMemory | None = None,
    ) -> None:
        self.variant = ""
        self._memory = memory
        self.signature_defs = {
            name: messages.SignatureDef.FromString(definition.SerializeToString())
            for name, definition in meta_graph.signature_def.items()
        }
        self._signatures = {name: signature_of(value) for name, value in self.signature_defs.items()}
        self._session = tf_session
        self._network = network
        self._outputs: dict[str, Any] = {}

    def close(self) -> None:
        """Free the session. Call only if no `run` is in progress."""
        if self._network is not None:
            self._network.close()
        self._session.close()
        self._outputs.clear()

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_s: float | None) -> list[Array]:
        """Run the graph, or its decoding part and then the LiteRT network.

        Args:
            feeds: tensor name to value.
            fetches: names of the tensors to compute.
            timeout_s: seconds after which the run is cancelled; None for no limit.

        Returns:
            One array per fetch.

        Raises:
            ServingError: with the code and message of the graph's or the network's error.
        """
        if self._network is not None and (aliases := self._network_outputs(feeds, fetches)):
            return self._run_network(self._network, feeds, aliases, timeout_s)
        return self._run_graph(feeds, fetches, timeout_s)

    def _network_outputs(self, feeds: Mapping[str, Array], fetches: Sequence[str]) -> list[str]:
        """Return the aliases of the fetches if the network can compute all of them, else an empty list."""
        serving = self._signatures[SERVING_SIGNATURE]
        # Scalars and empty batches: the graph has the right error or the right empty shapes for them.
        if any(not value.shape or not len(value) for value in feeds.values()):
            return []
        if feeds.keys() != {feed.tensor for feed in serving.inputs.values()}:
            return []  # another signature
        aliases = {tensor: alias for alias, tensor in serving.outputs.items()}
        return [aliases[name] for name in fetches] if aliases.keys() >= set(fetches) else []

    def _run_network(
        self, network: Network, feeds: Mapping[str, Array], aliases: Sequence[str], timeout_s: float | None
    ) -> list[Array]:
        started_s = time.monotonic()
        serving, decode = self._signatures[SERVING_SIGNATURE], self._signatures[DECODE_SIGNATURE]
        encoded = {decode.inputs[alias].tensor: feeds[feed.tensor] for alias, feed in serving.inputs.items()}
        # Decoding stays in the graph, so that LiteRT gets exactly the pixels of the training.
        (images,) = self._run_graph(encoded, [decode.outputs[PIXELS_TENSOR]], timeout_s)
        left_s = None if timeout_s is None else timeout_s - (time.monotonic() - started_s)
        outputs = network.run(np.split(images, len(images)), left_s)
        return [outputs[alias] for alias in aliases]

    def _run_graph(
        self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_s: float | None
    ) -> list[Array]:
        inputs = {self._output(name): value for name, value in feeds.items()}
        outputs = [self._output(name) for name in fetches]
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._held(feeds, deadline_s), run_slot(_left_s(deadline_s)) as slot:
            options = _run_options(_left_s(deadline_s), slot)
            try:
                # The call inside Session.run, which takes 140 µs longer and silently converts the types of
                # the feeds. Session.make_callable has no timeout per call.
                arrays: list[Array] = self._session._call_tf_sessionrun(options, inputs, outputs, [], None)  # noqa: SLF001 - see above
            except errors_impl.OpError as error:
                raise _serving_error(error) from error
            finally:
                pywrap_tf_session.TF_DeleteBuffer(options)  # C memory, which Python does not free
        return arrays

    def _held(self, feeds: Mapping[str, Array], deadline_s: float | None) -> AbstractContextManager[None]:
        """Hold the memory in which the images of a call are decoded."""
        if self._memory is None or not (wanted := graph_bytes(feeds)):
            return nullcontext()
        # Also after the deadline: TensorFlow returns only when the last operation has ended.
        return self._memory.taken(wanted, deadline_s)

    def _output(self, name: str) -> Any:
        output = self._outputs.get(name)
        if output is None:
            try:
                output = self._session.graph.get_tensor_by_name(name)._as_tf_output()  # noqa: SLF001 - the type that the inner call takes
            except (KeyError, ValueError) as error:
                raise ServingError(
                    Code.INVALID_ARGUMENT, f"Tensor {name} was not found in the graph"
                ) from error
            self._outputs[name] = output
        return output


def _thread_pools(threads: int) -> list[config_pb2.ThreadPoolOptionProto]:
    threads = threads or len(os.sched_getaffinity(0))
    # Named, so that all sessions of the process share them.
    return [
        config_pb2.ThreadPoolOptionProto(num_threads=threads, global_name=f"modelserver.run-{number}")
        for number in range(POOLS)
    ]


def _left_s(deadline_s: float | None) -> float | None:
    return None if deadline_s is None else deadline_s - time.monotonic()


def _run_options(timeout_s: float | None, slot: int) -> Any:
    options = config_pb2.RunOptions(inter_op_thread_pool=slot)
    if timeout_s is not None:
        if timeout_s <= 0:
            raise ServingError(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
        options.timeout_in_ms = max(1, int(timeout_s * 1000))  # TensorFlow takes 0 for no limit
    return pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())


def _serving_error(error: errors_impl.OpError) -> ServingError:
    return ServingError(Code(error.error_code), str(error.message))


def _load_error(error: Exception, path: Path) -> ServingError:
    match error:
        case ServingError():
            return error
        case errors_impl.OpError():
            return _serving_error(error)
        case OSError():  # the loader raises it for a missing or unparsable saved_model.pb alike
            return no_saved_model(path)
        case RuntimeError():  # no MetaGraph has the tag `serve`
            return ServingError(Code.NOT_FOUND, str(error))
        case _:
            return ServingError(Code.INVALID_ARGUMENT, f"{type(error).__name__}: {error}")
