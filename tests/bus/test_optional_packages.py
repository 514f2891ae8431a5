"""Imports without optional packages."""

import subprocess
import sys

import pytest

from bus.optional_packages import not_found

STORE = "import cloud.dataset.store, sys; print('pandas' in sys.modules); import pandas"


def test_a_package_is_not_found_in_the_block_alone() -> None:
    """A hidden package fails to import as if it were not installed; others can be, and later it is found."""
    with not_found("this", "colorsys"):
        import nturl2path  # noqa: F401, PLC0415  # any module that nothing else imports

        with pytest.raises(ModuleNotFoundError) as refused:
            import this  # noqa: F401, PLC0415
    import colorsys  # noqa: F401, PLC0415

    assert refused.value.name == "this"


def test_the_dataset_loads_no_pandas() -> None:
    """The dataset is opened without pandas, which Lance would load; a later import of it works."""
    done = subprocess.run([sys.executable, "-c", STORE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
