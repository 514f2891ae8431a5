"""What the test processes of one run share: the first that asks for it makes it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bus.files.file_lock import exclusive_lock

_MAKE_S = 600.0  # only ends a hang


def once_per_run(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that nobody may change, which `make` fills in the first process that asks for it.

    It is in the folder of this run: what a later run finds was made by the code that it tests.
    """
    run = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent  # that of the process alone is below the run's
    folder, unfinished = run / name, run / f"unfinished-{name}"
    with exclusive_lock(run / f"{name}.lock", timeout_s=_MAKE_S):
        if not folder.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder
