"""The messages of `edge/serving/messages.proto` against those of TensorFlow Serving itself."""

import subprocess
import sys

from edge.serving import messages_pb2 as messages
from tests.conftest import ROOT

_ORIGINALS = """
import json, sys, types, importlib.util
spec = importlib.util.find_spec("tensorflow")
package = types.ModuleType("tensorflow")
package.__path__ = list(spec.submodule_search_locations)
sys.modules["tensorflow"] = package
from google.protobuf import descriptor_pool
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    classification_pb2, get_model_metadata_pb2, get_model_status_pb2, model_management_pb2, predict_pb2,
    prediction_log_pb2, regression_pb2,
)
from edge.serving import messages_pb2 as messages
pool = descriptor_pool.Default()
homes = ("tensorflow.serving.", "tensorflow.")
special = {
    "ServableVersionPolicy": "tensorflow.serving.FileSystemStoragePathSourceConfig.ServableVersionPolicy",
}
ints = (5, 14)
def alike(ours, theirs):
    # A message may be read as the bytes that it is on the wire, where its content does not matter here.
    return ours == theirs or {ours, theirs} == set(ints) or (ours == 12 and theirs == 11)
def original(name):
    for home in homes:
        try:
            return pool.FindMessageTypeByName(special.get(name, home + name))
        except KeyError:
            continue
    raise SystemExit(f"TensorFlow Serving has no message {name}")
def compare(ours, theirs):
    for field in ours.fields:
        other = theirs.fields_by_name[field.name]
        same = field.number == other.number and field.is_repeated == other.is_repeated
        if not same or not alike(field.type, other.type):
            raise SystemExit(f"{ours.full_name}.{field.name} differs")
        if field.message_type and field.message_type.file.name == messages.DESCRIPTOR.name:
            compare(field.message_type, other.message_type)
for name, ours in messages.DESCRIPTOR.message_types_by_name.items():
    compare(ours, original(name))
print(len(messages.DESCRIPTOR.message_types_by_name))
"""


def test_every_field_has_the_number_and_type_of_the_original():
    """On the wire only numbers and types count: each field has those of the official API package."""
    done = subprocess.run(
        [sys.executable, "-c", _ORIGINALS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) == len(messages.DESCRIPTOR.message_types_by_name)
