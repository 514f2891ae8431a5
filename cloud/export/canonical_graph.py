"""Rewrite a SavedModel so that equal networks give equal bytes, regardless of what the process traced before.

TensorFlow ends the names of functions with a counter of the process, orders them by a hash of these names,
and adds a random id in `fingerprint.pb`, which nothing needs. Without this, a release of another head would
move most of the graph too (docs/decisions/0075).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2

_GRAPH_FILE = "saved_model.pb"
_FINGERPRINT_FILE = "fingerprint.pb"
_COUNTED = re.compile(r"(.*)_(\d+)")
_UNUSED_ARGUMENT = re.compile(r"_\d+(?=___redundant_placeholder\d+$)")
_ARGUMENT_NAME = "_user_specified_name"


def make_canonical(directory: Path) -> None:
    """Rename and sort the functions of a SavedModel that was just written; its answers stay the same."""
    path = directory / _GRAPH_FILE
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString(path.read_bytes())
    for graph in saved.meta_graphs:
        functions = graph.graph_def.library.function
        names = _new_names(function.signature.name for function in functions)
        _rename(graph, names)
        for function in functions:
            _tidy_arguments(function)
        ordered = sorted(functions, key=lambda function: str(function.signature.name))
        del functions[:]
        functions.extend(ordered)
    path.write_bytes(saved.SerializeToString(deterministic=True))
    (directory / _FINGERPRINT_FILE).unlink(missing_ok=True)


def _new_names(names: Iterable[str]) -> dict[str, str]:
    """Return new names of functions: the counter of the process becomes the rank among equal stems."""
    counted = [(match[1], int(match[2]), match[0]) for match in map(_COUNTED.fullmatch, names) if match]
    ranks: Counter[str] = Counter()
    new = {}
    for stem, _, name in sorted(counted):  # functions are counted in the order in which they are traced
        new[name] = f"{stem}_{ranks[stem]}"
        ranks[stem] += 1
    return new


def _tidy_arguments(function: Any) -> None:
    """Remove the counter from names of arguments that nothing refers to."""
    for attributes in function.arg_attr.values():
        if attributes.attr[_ARGUMENT_NAME].s.isdigit():  # of a captured variable
            del attributes.attr[_ARGUMENT_NAME]
    used = {name.partition(":")[0] for node in function.node_def for name in node.input}
    used.update(name.partition(":")[0] for name in function.ret.values())
    for argument in function.signature.input_arg:
        if argument.name not in used:
            argument.name = _UNUSED_ARGUMENT.sub("", argument.name)


def _rename(message: Any, names: Mapping[str, str]) -> None:
    """Replace names of functions in all texts of a message but the names and inputs of nodes."""
    for field, value in message.ListFields():
        if message.DESCRIPTOR.name == "NodeDef" and field.name in ("name", "input"):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _rename_in_map(value, field.message_type.fields_by_name["value"], names)
        elif field.type == field.TYPE_MESSAGE:
            for one in value if field.is_repeated else [value]:
                _rename(one, names)
        elif field.type == field.TYPE_STRING and field.is_repeated:
            value[:] = [names.get(text, text) for text in value]
        elif field.type == field.TYPE_STRING and value in names:
            setattr(message, field.name, names[value])


def _rename_in_map(entries: Any, value: Any, names: Mapping[str, str]) -> None:
    if value.type == value.TYPE_MESSAGE:
        for one in entries.values():
            _rename(one, names)
    elif value.type == value.TYPE_STRING:
        for key, text in list(entries.items()):
            entries[key] = names.get(text, text)
    for key in [key for key in entries if key in names]:
        if value.type == value.TYPE_MESSAGE:
            entries[names[key]].CopyFrom(entries[key])
        else:
            entries[names[key]] = entries[key]
        del entries[key]
