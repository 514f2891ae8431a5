"""Import TensorFlow without its notes for its own developers, and without what it does not need here."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bus.log import native_stderr_hidden

_OPTIONAL_FOR_KERAS = ("cv2", "matplotlib", "pandas", "sklearn")


def load_tensorflow() -> None:
    """Import TensorFlow and Keras, which takes seconds and hundreds of megabytes.

    While TensorFlow is imported it has not read `TF_CPP_MIN_LOG_LEVEL` yet, and prints to standard error.
    Call this before other threads import anything.
    """
    with native_stderr_hidden(), _not_found(_OPTIONAL_FOR_KERAS):
        import keras  # noqa: F401, PLC0415
        import tensorflow  # noqa: F401, ICN001, PLC0415


@contextmanager
def _not_found(packages: tuple[str, ...]) -> Iterator[None]:
    """Make imports of packages fail in a block, except those that are imported already.

    Keras imports whatever it finds of them, for functions that nothing here calls: a third of the time and
    170 MB.
    """
    hidden = [name for name in packages if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # documented: an import then raises ModuleNotFoundError
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
