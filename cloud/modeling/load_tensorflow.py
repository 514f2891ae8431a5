"""Import TensorFlow without its notes for its own developers, and without what it does not need here."""

from bus.log import native_stderr_hidden
from bus.optional_packages import not_found


def load_tensorflow() -> None:
    """Import TensorFlow and Keras, which takes seconds and hundreds of megabytes.

    Keras imports those of four packages that are installed, for functions that nothing here calls: a third of
        the
    time and 170 MB. Scikit-learn, which the trainer needs, imports pandas to know its version: half a second
    and 37 MB. While TensorFlow is imported it has not read `TF_CPP_MIN_LOG_LEVEL` yet, and prints to
    standard error. Call this before other threads import anything.
    """
    with native_stderr_hidden(), not_found("cv2", "matplotlib", "pandas", "sklearn"):
        import keras  # noqa: F401, PLC0415
        import tensorflow  # noqa: F401, ICN001, PLC0415
    with not_found("pandas"):
        import sklearn  # noqa: F401, PLC0415
