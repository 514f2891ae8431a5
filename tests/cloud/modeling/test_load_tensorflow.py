"""Loading TensorFlow: silent, and without what it does not need."""

import subprocess
import sys

PROGRAM = """
import sys
import scipy
from cloud.modeling.load_tensorflow import load_tensorflow
load_tensorflow()
import tensorflow
import sklearn.linear_model
print(*sorted({"cv2", "matplotlib", "pandas"} & set(sys.modules)))
import pandas
"""


def test_keras_finds_nothing_that_is_not_needed() -> None:
    """It prints nothing, none of Keras' optional packages is loaded, and all can be imported afterwards."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
