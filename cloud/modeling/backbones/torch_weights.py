"""Read the tensors of a PyTorch checkpoint without PyTorch and without running its code."""

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from schemas.errors import PermanentError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_COUNT_BYTES = 8  # each storage is preceded by its number of elements, a little-endian int64


class CheckpointError(PermanentError):
    """A file is not a legacy PyTorch checkpoint, or has something other than tensors."""


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: np.dtype[np.generic]
    elements: int


@dataclass(frozen=True, slots=True)
class _View:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_checkpoint(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read a state dict that `torch.save` wrote in its legacy (not zip) format. Safe for untrusted files.

    Args:
        path: the checkpoint.

    Returns:
        Tensors by name, each a copy.

    Raises:
        CheckpointError: the file is not of that format, is truncated or pickles anything but tensors.
    """
    content = path.read_bytes()
    # Five pickles (magic number, protocol, platform, state dict, storage keys), then the raw storages in the
    # order of the keys.
    stream = io.BytesIO(content)
    try:
        magic, protocol, _platform, views, keys = (_TensorUnpickler(stream).load() for _ in range(5))
    except (
        CheckpointError,
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
    ) as error:
        raise CheckpointError(f"{path.name}: expected a pickled state dict, got {error}") from error
    if (magic, protocol) != (_MAGIC, _PROTOCOL):
        raise CheckpointError(
            f"{path.name}: expected the legacy PyTorch format, got magic {magic!r} {protocol!r}"
        )
    if not isinstance(views, dict) or not all(isinstance(view, _View) for view in views.values()):
        raise CheckpointError(f"{path.name}: expected a dict of tensors, got {type(views).__name__}")
    storages = _read_storages(
        content, stream.tell(), keys, {v.storage.key: v.storage for v in views.values()}
    )
    return {name: _materialise(name, view, storages) for name, view in views.items()}


class _TensorUnpickler(pickle.Unpickler):
    """Resolves the four names of a plain state dict to inert substitutes; any other name is an error."""

    # The only gate between a pickle and a call: what is returned here may be called with any arguments.
    def find_class(self, module: str, name: str) -> Callable[..., object] | np.dtype[np.generic]:
        allowed: dict[tuple[str, str], Callable[..., object] | np.dtype[np.generic]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch", "FloatStorage"): np.dtype("<f4"),
            ("torch", "LongStorage"): np.dtype("<i8"),
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"the name {module}.{name}, which no state dict needs")
        return allowed[module, name]

    def persistent_load(self, pid: tuple[str, np.dtype[np.generic], str, str, int, None]) -> _Storage:
        kind, dtype, key, _location, elements, view = pid
        if kind != "storage" or view is not None or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError(f"a persistent id that is not a whole storage: {kind!r}")
        return _Storage(str(key), dtype, int(elements))


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _View:
    return _View(storage, offset, shape, strides)


def _read_storages(
    content: bytes, position: int, keys: list[str], declared: dict[str, _Storage]
) -> dict[str, NDArray[np.generic]]:
    if sorted(keys) != sorted(declared):
        raise CheckpointError(f"storage keys: expected {len(declared)} as in the state dict, got {len(keys)}")
    storages: dict[str, NDArray[np.generic]] = {}
    for key in keys:
        storage = declared[key]
        elements = int.from_bytes(content[position : position + _COUNT_BYTES], "little")
        position += _COUNT_BYTES
        end = position + elements * storage.dtype.itemsize
        if elements != storage.elements or end > len(content):
            _refuse_storage(storage, elements)
        storages[key] = np.frombuffer(content, storage.dtype, elements, position)
        position = end
    return storages


def _refuse_storage(storage: _Storage, elements: int) -> NoReturn:
    raise CheckpointError(
        f"storage {storage.key}: expected {storage.elements} elements in the file, got {elements}"
    )


def _materialise(name: str, view: _View, storages: dict[str, NDArray[np.generic]]) -> NDArray[np.generic]:
    storage = storages[view.storage.key]
    last = view.offset + sum((n - 1) * stride for n, stride in zip(view.shape, view.strides, strict=True))
    # `as_strided` checks nothing: a view beyond its storage would read foreign memory.
    inside = min(view.offset, *view.shape, *view.strides, 0) == 0 and last < storage.size
    if 0 in view.shape or not inside:
        raise CheckpointError(f"tensor {name}: expected a view inside its storage, got {view}")
    strides_bytes = [stride * storage.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(storage[view.offset :], view.shape, strides_bytes).copy()
