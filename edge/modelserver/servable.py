"""One loaded version of a model. The only file that touches the TensorFlow runtime, but for LiteRT's."""

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
from edge.modelserver.tflite import ANSWER, DECODE, PIXELS, Network, found

SERVE_TAG = "serve"

logging.getLogger("tensorflow").setLevel(logging.ERROR)  # the V1 loader warns that there is a V2


@dataclass(frozen=True, slots=True)
class Feed:
    """An input of a signature: the name of its tensor in the graph and its DataType."""

    tensor: str
    dtype: int


@dataclass(frozen=True, slots=True)
class Signature:
    """One way to call a model.

    Args:
        method: the signature's method name, such as `tensorflow/serving/predict`.
        inputs: alias to feed.
        outputs: alias to the name of the tensor in the graph.
        defaults: alias to the value of an input that a request may leave out.
    """

    method: str
    inputs: Mapping[str, Feed]
    outputs: Mapping[str, str]
    defaults: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How versions are run.

    Args:
        intra_op_parallelism: threads of one operation; 0 lets TensorFlow choose.
        inter_op_parallelism: operations that run at the same time; 0 lets TensorFlow choose.
        prefer_tflite: run the network of a version in LiteRT where it comes with one.
    """

    intra_op_parallelism: int = 0
    inter_op_parallelism: int = 0
    prefer_tflite: bool = False


class Servable:
    """A version of a model, ready to be called from any thread. Made by `load`.

    Requests hold it by `acquire` and `release`; `retire` stops new ones, and the last to leave makes it
    `idle`, so that it can be closed without failing anybody.

    Args:
        name: the model.
        version: its number.
        meta_graph: what the loader read.
        tf_session: the session that holds the variables.
        network: answers from what the signature `decode` gives; None: the graph does.
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
        """Enter a request. False where the version is retired: look for another one."""
        with self._lock:
            if self._retired is not None:
                return False
            self._requests += 1
            return True

    def release(self) -> None:
        """Leave after `acquire`."""
        with self._lock:
            self._requests -= 1
            last = self._retired if self._requests == 0 else None
        if last is not None:
            last()

    def retire(self, on_idle: Callable[[], None]) -> None:
        """Let no further request in.

        Args:
            on_idle: called once, as soon as no request is inside, in the thread of the last one.
        """
        with self._lock:
            self._retired = on_idle
            empty = self._requests == 0
        if empty:
            on_idle()

    @property
    def idle(self) -> bool:
        """Whether it is retired and its last request has left."""
        with self._lock:
            return self._retired is not None and self._requests == 0

    def close(self) -> None:
        """Free the session. Only when `idle`."""
        if self._network is not None:
            self._network.close()
        self._session.close()
        self._outputs.clear()

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_s: float | None) -> list[Array]:
        """Run the graph, or the part of it that decodes and then the network in LiteRT.

        Args:
            feeds: tensor name to value.
            fetches: the tensors to compute, by name.
            timeout_s: seconds after which the run is cancelled; None for no limit.

        Returns:
            One array per fetch.

        Raises:
            ServingError: with the code and message of whatever the graph failed with.
        """
        if self._network is not None and (aliases := self._answered(feeds, fetches)):
            return self._run_network(self._network, feeds, aliases, timeout_s)
        return self._run_graph(feeds, fetches, timeout_s)

    def _answered(self, feeds: Mapping[str, Array], fetches: Sequence[str]) -> list[str]:
        """Name the outputs of `ANSWER` that are wanted; nothing where another way has to be gone."""
        asked = self.signatures[ANSWER]
        if any(not value.shape or not len(value) for value in feeds.values()):
            return []
        if feeds.keys() != {feed.tensor for feed in asked.inputs.values()}:
            return []
        aliases = {tensor: alias for alias, tensor in asked.outputs.items()}
        return [aliases[name] for name in fetches] if aliases.keys() >= set(fetches) else []

    def _run_network(
        self, network: Network, feeds: Mapping[str, Array], aliases: Sequence[str], timeout_s: float | None
    ) -> list[Array]:
        started_s, asked, decode = (
            time.monotonic(),
            self.signatures[ANSWER],
            self.signatures[DECODE],
        )
        encoded = {decode.inputs[alias].tensor: feeds[feed.tensor] for alias, feed in asked.inputs.items()}
        (images,) = self._run_graph(encoded, [decode.outputs[PIXELS]], timeout_s)
        left_s = None if timeout_s is None else timeout_s - (time.monotonic() - started_s)
        answers = network.run(images, left_s)
        return [answers[alias] for alias in aliases]

    def _run_graph(
        self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_s: float | None
    ) -> list[Array]:
        inputs = {self._output(name): value for name, value in feeds.items()}
        outputs = [self._output(name) for name in fetches]
        options = _run_options(timeout_s)
        try:
            # The thin call under Session.run. That one costs 140 µs more, converts the feeds' types in
            # silence, and a callable made once could not carry each request's own time-out.
            arrays: list[Array] = self._session._call_tf_sessionrun(options, inputs, outputs, [], None)  # noqa: SLF001 - see above
        except errors_impl.OpError as error:
            raise _serving_error(error) from error
        finally:
            if options is not None:
                pywrap_tf_session.TF_DeleteBuffer(options)
        return arrays

    def _output(self, name: str) -> Any:
        output = self._outputs.get(name)
        if output is None:
            try:
                output = self._session.graph.get_tensor_by_name(name)._as_tf_output()  # noqa: SLF001 - what the thin call takes
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
        options: the session's threads.

    Raises:
        ServingError: with what is wrong with the SavedModel.
    """
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
        wanted = options.prefer_tflite
        network = found(path, meta_graph.signature_def, options.intra_op_parallelism) if wanted else None
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
        case OSError():
            return ServingError(
                Code.NOT_FOUND,
                f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}",
            )
        case RuntimeError():
            return ServingError(Code.NOT_FOUND, str(error))
        case _:
            return ServingError(Code.INVALID_ARGUMENT, f"{type(error).__name__}: {error}")


def records(path: Path) -> Iterator[bytes]:
    """Read the records of a TFRecord file.

    Raises:
        ServingError: DATA_LOSS where the file is none, or is damaged.
    """
    try:
        yield from tf_record.tf_record_iterator(str(path))
    except errors_impl.OpError as error:
        raise _serving_error(error) from error
