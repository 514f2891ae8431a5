"""Read and validate the BatchingParameters file."""

import itertools
import os
from dataclasses import dataclass, field

from google.protobuf import descriptor_pb2, wrappers_pb2

from edge.modelserver import proto_text
from edge.modelserver.status import Code, ServingError

_Field = descriptor_pb2.FieldDescriptorProto
_WRAPPED = (
    ("max_batch_size", "Int64Value"),
    ("batch_timeout_micros", "Int64Value"),
    ("max_enqueued_batches", "Int64Value"),
    ("num_batch_threads", "Int64Value"),
    ("thread_pool_name", "StringValue"),
    ("enable_large_batch_splitting", "BoolValue"),
    ("max_execution_batch_size", "Int64Value"),
)


@dataclass(frozen=True, slots=True)
class BatchingParameters:
    """How calls are batched. The defaults are those of tensorflow_model_server.

    Args:
        max_batch_size: maximum rows of a call, and of a batch unless large batches are split.
        batch_timeout_micros: how long an unfilled batch waits for further calls, in microseconds.
        max_enqueued_batches: batches that may wait for a thread; further calls get UNAVAILABLE.
        num_batch_threads: batches that run concurrently.
        allowed_batch_sizes: sizes that a batch is padded to, increasing; the last one is the largest batch.
            Empty: any size.
        pad_variable_length_inputs: pad inputs of different shapes instead of refusing to merge them.
        enable_large_batch_splitting: split a call of many rows over several batches.
        max_execution_batch_size: maximum rows of a batch if large batches are split; 0: max_batch_size.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0

    @property
    def largest_batch(self) -> int:
        """Maximum rows of one batch."""
        if self.enable_large_batch_splitting and self.max_execution_batch_size:
            return self.max_execution_batch_size
        return self.max_batch_size


def _message_class() -> type:
    """Build the message class, which tensorflow-serving-api does not ship."""
    file = descriptor_pb2.FileDescriptorProto(
        name="gleaner/batching_parameters.proto", package=proto_text.PACKAGE, syntax="proto3"
    )
    message = file.message_type.add(name="BatchingParameters")
    for number, (name, wrapper) in enumerate(_WRAPPED, 1):
        # Wrapper messages distinguish an absent field from a zero, which a plain proto3 field cannot.
        message.field.add(
            name=name,
            number=number,
            label=_Field.LABEL_OPTIONAL,
            type=_Field.TYPE_MESSAGE,
            type_name=f".google.protobuf.{wrapper}",
        )
    message.field.add(
        name="allowed_batch_sizes", number=101, label=_Field.LABEL_REPEATED, type=_Field.TYPE_INT64
    )
    message.field.add(
        name="pad_variable_length_inputs", number=102, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_BOOL
    )
    return proto_text.message_class(file, "BatchingParameters", [wrappers_pb2.DESCRIPTOR])


def parse(text: str) -> BatchingParameters:
    """Read BatchingParameters in protobuf text format.

    Raises:
        ServingError: INVALID_ARGUMENT if the text is invalid or a value is out of range.
    """
    message = _message_class()()
    proto_text.read(text, message)
    values = {name: getattr(message, name).value for name, _ in _WRAPPED if message.HasField(name)}
    values.pop("thread_pool_name", None)  # accepted for compatibility: there is one pool for all models
    parameters = BatchingParameters(
        allowed_batch_sizes=tuple(message.allowed_batch_sizes),
        pad_variable_length_inputs=message.pad_variable_length_inputs,
        **values,
    )
    _check(parameters)
    return parameters


def _check(parameters: BatchingParameters) -> None:
    for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
        if getattr(parameters, name) < 1:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"{name} must be positive; was {getattr(parameters, name)}"
            )
    for name in ("batch_timeout_micros", "max_execution_batch_size"):
        if getattr(parameters, name) < 0:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"{name} must be non-negative; was {getattr(parameters, name)}"
            )
    if parameters.max_execution_batch_size > parameters.max_batch_size:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            "max_execution_batch_size must be less than or equal to max_batch_size; was "
            f"{parameters.max_execution_batch_size}; expected at most {parameters.max_batch_size}",
        )
    _check_sizes(parameters.allowed_batch_sizes, parameters)


def _check_sizes(sizes: tuple[int, ...], parameters: BatchingParameters) -> None:
    if not sizes:
        return
    if sizes[0] < 1 or any(after <= before for before, after in itertools.pairwise(sizes)):
        raise ServingError(
            Code.INVALID_ARGUMENT, "allowed_batch_sizes entries must be positive and monotonically increasing"
        )
    if sizes[-1] != parameters.largest_batch:
        limit = "max_execution_batch_size" if parameters.enable_large_batch_splitting else "max_batch_size"
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"Last entry in allowed_batch_sizes must match {limit}; last entry was {sizes[-1]}; "
            f"expected {parameters.largest_batch}",
        )
