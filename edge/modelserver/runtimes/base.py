"""Interface of a runtime: load a version, and run its signatures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge.modelserver.status import Code, ServingError
from edge.modelserver.tensors import Array, to_array
from edge.serving import messages_pb2 as messages

SERVING_SIGNATURE = "serving_default"


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


class Program(Protocol):
    """A version in the memory of a runtime; thread-safe."""

    @property
    def variant(self) -> str:
        """The LiteRT variant that answers; empty for a graph."""

    @property
    def signature_defs(self) -> Mapping[str, messages.SignatureDef]:
        """The signatures that it answers, by name."""

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_s: float | None) -> list[Array]:
        """Run a signature.

        Args:
            feeds: tensor name to value.
            fetches: names of the tensors to compute.
            timeout_s: seconds after which the run is cancelled; None for no limit.

        Returns:
            One array per fetch.

        Raises:
            ServingError: with the code and message for the client.
        """

    def close(self) -> None:
        """Free its memory. Call only if no `run` is in progress."""


class Runtime(Protocol):
    """Loads versions."""

    def load(self, path: Path) -> Program:
        """Load the version in a directory.

        Raises:
            ServingError: it cannot be loaded.
        """


def signature_of(definition: messages.SignatureDef) -> Signature:
    """Convert a signature to the form that requests are checked against."""
    return Signature(
        method=definition.method_name,
        inputs={alias: Feed(info.name, info.dtype) for alias, info in definition.inputs.items()},
        outputs={alias: info.name for alias, info in sorted(definition.outputs.items())},
        defaults={alias: to_array(value) for alias, value in definition.defaults.items()},
    )


def no_saved_model(path: Path) -> ServingError:
    """Return TensorFlow Serving's error for a directory without a SavedModel."""
    return ServingError(
        Code.NOT_FOUND, f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}"
    )
