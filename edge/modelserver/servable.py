"""Load and run one version of a model. Besides tflite.py, the only module that uses TensorFlow itself."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow.python.client import pywrap_tf_session, session
from tensorflow.python.framework import errors_impl, ops
from tensorflow.python.lib.io import tf_record
from tensorflow.python.saved_model import loader_impl

from edge.modelserver.status import Code, ServingError
from edge.modelserver.tensors import Array, to_array
from edge.modelserver.tflite import DECODE_SIGNATURE, PIXELS_TENSOR, SERVING_SIGNATURE, Network, find_network

SERVE_TAG = "serve"

logging.getLogger("tensorflow").setLevel(
    logging.ERROR
)  # the V1 loader warns on each load that it is deprecated


@dataclass(frozen=True, slots=True)
class Feed:
    """An input of a signature: tensor name in the graph, and DataType."""

    tensor: str
    dtype: int


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature of a model.

    Args:
        method: method name, such as `tensorflow/serving/predict`.
        inputs: alias to feed.
        outputs: alias to tensor name in the graph.
        defaults: alias to default value, for inputs that a request may omit.
    """

    method: str
    inputs: Mapping[str, Feed]
    outputs: Mapping[str, str]
    defaults: Mapping[str, Array]


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


class Servable:
    """A loaded version of a model; thread-safe. Created by `load`.

    Requests hold it between `acquire` and `release`. `retire` refuses new ones; once the last has ended the
    version is `idle` and can be closed without failing a request.

    Args:
        name: the model.
        version: its number.
        meta_graph: as read by the loader.
        tf_session: session with the variables.
        network: LiteRT network that takes the output of the signature `decode`; None: the graph answers.
    """

    def __init__(
        self,
        name: str,
        version: int,
        meta_graph: meta_graph_pb2.MetaGraphDef,
        tf_session: session.Session,
        network: Network | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.signature_defs = dict(meta_graph.signature_def)
        self.signatures = {key: _signature(value) for key, value in self.signature_defs.items()}
        self._session = tf_session
        self._network = network
        self._outputs: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._requests = 0
        self._retired: Callable[[], None] | None = None

    def acquire(self) -> bool:
        """Begin a request; return False if the version is retired."""
        with self._lock:
            if self._retired is not None:
                return False
            self._requests += 1
            return True

    def release(self) -> None:
        """End a request that `acquire` began."""
        with self._lock:
            self._requests -= 1
            on_idle = self._retired if self._requests == 0 else None
        if on_idle is not None:
            on_idle()  # without the lock: the callback may ask for `idle`

    def retire(self, on_idle: Callable[[], None]) -> None:
        """Refuse new requests.

        Args:
            on_idle: called once, when the last request has ended, in that request's thread.
        """
        with self._lock:
            self._retired = on_idle
            idle = self._requests == 0
        if idle:
            on_idle()

    @property
    def idle(self) -> bool:
        """True if it is retired and its last request has ended."""
        with self._lock:
            return self._retired is not None and self._requests == 0

    def close(self) -> None:
        """Free the session. Call only if `idle`."""
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
        serving = self.signatures[SERVING_SIGNATURE]
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
        serving, decode = self.signatures[SERVING_SIGNATURE], self.signatures[DECODE_SIGNATURE]
        encoded = {decode.inputs[alias].tensor: feeds[feed.tensor] for alias, feed in serving.inputs.items()}
        # Decoding stays in the graph, so that LiteRT gets exactly the pixels of the training.
        (images,) = self._run_graph(encoded, [decode.outputs[PIXELS_TENSOR]], timeout_s)
        left_s = None if timeout_s is None else timeout_s - (time.monotonic() - started_s)
        outputs = network.run(images, left_s)
        return [outputs[alias] for alias in aliases]

    def _run_graph(
        self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_s: float | None
    ) -> list[Array]:
        inputs = {self._output(name): value for name, value in feeds.items()}
        outputs = [self._output(name) for name in fetches]
        options = _run_options(timeout_s)
        try:
            # The call inside Session.run, which takes 140 µs longer and silently converts the types of
            # the feeds. Session.make_callable has no timeout per call.
            arrays: list[Array] = self._session._call_tf_sessionrun(options, inputs, outputs, [], None)  # noqa: SLF001 - see above
        except errors_impl.OpError as error:
            raise _serving_error(error) from error
        finally:
            if options is not None:
                pywrap_tf_session.TF_DeleteBuffer(options)  # C memory, which Python does not free
        return arrays

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


def _run_options(timeout_s: float | None) -> Any:
    if timeout_s is None:
        return None
    if timeout_s <= 0:
        raise ServingError(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
    # At least 1 ms: TensorFlow takes 0 for no limit.
    options = config_pb2.RunOptions(timeout_in_ms=max(1, int(timeout_s * 1000)))
    return pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())


def _serving_error(error: errors_impl.OpError) -> ServingError:
    return ServingError(Code(error.error_code), str(error.message))


def _signature(definition: meta_graph_pb2.SignatureDef) -> Signature:
    return Signature(
        method=definition.method_name,
        inputs={alias: Feed(info.name, info.dtype) for alias, info in definition.inputs.items()},
        outputs={alias: info.name for alias, info in sorted(definition.outputs.items())},
        defaults={alias: to_array(value) for alias, value in definition.defaults.items()},
    )


def load(name: str, version: int, path: Path, options: SessionOptions) -> Servable:
    """Load a SavedModel.

    Args:
        name: the model.
        version: its number.
        path: the directory of the version.
        options: settings of the session.

    Raises:
        ServingError: the SavedModel or its network cannot be loaded.
    """
    # A graph and session per version, so that closing one frees its memory and leaves the others alone.
    graph = ops.Graph()
    tf_session = session.Session(
        graph=graph,
        config=config_pb2.ConfigProto(
            intra_op_parallelism_threads=options.intra_op_parallelism,
            inter_op_parallelism_threads=options.inter_op_parallelism,
        ),
    )
    try:
        with graph.as_default():
            meta_graph = loader_impl.load(tf_session, [SERVE_TAG], str(path))
        network = None
        if options.prefer_tflite:
            network = find_network(path, meta_graph.signature_def, options.intra_op_parallelism)
        return Servable(name, version, meta_graph, tf_session, network)
    except BaseException as error:
        tf_session.close()
        if isinstance(error, Exception):
            raise _load_error(error, path) from error
        raise


def _load_error(error: Exception, path: Path) -> ServingError:
    match error:
        case ServingError():
            return error
        case errors_impl.OpError():
            return _serving_error(error)
        case OSError():  # the loader raises it for a missing or unparsable saved_model.pb alike
            return ServingError(
                Code.NOT_FOUND,
                f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}",
            )
        case RuntimeError():  # no MetaGraph has the tag `serve`
            return ServingError(Code.NOT_FOUND, str(error))
        case _:
            return ServingError(Code.INVALID_ARGUMENT, f"{type(error).__name__}: {error}")


def records(path: Path) -> Iterator[bytes]:
    """Yield the records of a TFRecord file.

    Raises:
        ServingError: DATA_LOSS if the file is damaged or not a TFRecord file.
    """
    try:
        yield from tf_record.tf_record_iterator(str(path))
    except errors_impl.OpError as error:
        raise _serving_error(error) from error
