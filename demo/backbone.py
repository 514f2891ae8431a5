"""Load a backbone before anything else happens: `python -m demo.backbone NAME`.

Prints why it cannot be had, or nothing. A process of its own, since TensorFlow is large and speaks a lot.
"""

import contextlib
import sys


def reason_against(name: str) -> str:
    """Return why a backbone cannot be had, empty if it can; weights that it lacks are downloaded now."""
    from cloud.modeling.backbones import BackboneUnavailableError, get_backbone  # noqa: PLC0415  # loads TensorFlow

    try:
        get_backbone(name).build()
    except BackboneUnavailableError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):  # where Keras shows a download
        answer = reason_against(sys.argv[1])
    print(answer)
