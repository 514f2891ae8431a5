"""Check that a backbone is available and download its weights: `python -m demo.backbone NAME`.

Prints the reason if it is not. It is a separate process because it loads TensorFlow.
"""

import contextlib
import sys

from cloud.modeling.load_tensorflow import load_tensorflow


def unavailable_reason(name: str) -> str:
    """Build a backbone, and download its weights if needed; return why that failed, or an empty string."""
    load_tensorflow()
    from cloud.modeling.backbones import BackboneUnavailableError, get_backbone  # noqa: PLC0415  # uses TensorFlow

    try:
        get_backbone(name).build()
    except BackboneUnavailableError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):  # Keras prints its downloads to stdout, which is the answer
        reason = unavailable_reason(sys.argv[1])
    print(reason)
