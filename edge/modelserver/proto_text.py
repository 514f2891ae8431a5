"""Protobuf's text format: files that flags name, and messages that tensorflow-serving-api does not ship."""

from collections.abc import Iterable

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message

from edge.modelserver.status import Code, ServingError

PACKAGE = "tensorflow.serving"


def read(text: str, message: Message) -> None:
    """Read a text into a message.

    Raises:
        ServingError: INVALID_ARGUMENT if the text is invalid.
    """
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"Invalid protobuf: {error}") from error


def message_class(
    file: descriptor_pb2.FileDescriptorProto, name: str, dependencies: Iterable[FileDescriptor] = ()
) -> type:
    """Return the class of a message of a file.

    Only the text format of these files is read. It names the fields, so their numbers do not have to be
    TensorFlow Serving's.

    Args:
        file: In the package `PACKAGE`.
        name: Of the message.
        dependencies: Files that it imports.
    """
    # A private pool: the default one would conflict with a release that ships this message.
    pool = descriptor_pool.DescriptorPool()
    for dependency in dependencies:
        file.dependency.append(dependency.name)
        pool.AddSerializedFile(dependency.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
