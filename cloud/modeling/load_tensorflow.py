"""Import TensorFlow without the notes that it prints for its own developers."""

from bus.log import native_stderr_hidden


def load_tensorflow() -> None:
    """Import TensorFlow and Keras, which takes seconds and hundreds of megabytes.

    While TensorFlow is imported it has not read `TF_CPP_MIN_LOG_LEVEL` yet, and prints to standard error.
    """
    with native_stderr_hidden():
        import keras  # noqa: F401, PLC0415
        import tensorflow  # noqa: F401, ICN001, PLC0415
