"""Tests of cloud/modeling/blas_threads.py."""

import os
import subprocess
import sys
from types import ModuleType

import pytest
from threadpoolctl import ThreadpoolController

from cloud.modeling import blas_threads
from cloud.modeling.blas_threads import one_blas_thread

_LATE_IMPORT = """
import numpy
from threadpoolctl import threadpool_info
from cloud.modeling.blas_threads import one_blas_thread

def threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

with one_blas_thread():
    pass
import scipy.linalg
before = threads()
with one_blas_thread():
    late = threads()
print(set(late), threads() == before)
"""


def test_a_library_that_is_loaded_later_is_limited_too() -> None:
    """What was found once is not all for ever: scikit-learn and others bring a BLAS with their import."""
    done = subprocess.run(
        [sys.executable, "-c", _LATE_IMPORT],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "2"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "{1} True\n", "")


def test_libraries_are_looked_for_only_after_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """To look for them takes half as long as a small fit, of which a training makes hundreds."""
    looked = []

    def counted() -> ThreadpoolController:
        looked.append(1)
        return ThreadpoolController()

    monkeypatch.setattr(blas_threads, "ThreadpoolController", counted)
    monkeypatch.setattr(blas_threads, "_found", None)
    for _ in range(3):
        with one_blas_thread():
            pass
    assert len(looked) == 1
    monkeypatch.setitem(sys.modules, "a_module_that_was_just_imported", ModuleType("late"))
    with one_blas_thread():
        pass
    assert len(looked) == 2
