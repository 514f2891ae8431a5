from pathlib import Path

import pytest

from deploy.images.prune import main


def put(tree: Path, *names: str) -> None:
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x\n")


def left(tree: Path) -> set[str]:
    return {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}


def test_what_is_only_built_or_tested_with_goes(tmp_path):
    """Headers, sources, stubs, static libraries, tests and install records are not needed at run time."""
    put(
        tmp_path,
        "pack/__init__.py",
        "pack/core.so",
        "pack/core.pyi",
        "pack/include/core.h",
        "pack/lib/libcore.a",
    )
    put(tmp_path, "pack/tests/test_core.py", "pack/core.pyx", "pack/__pycache__/core.pyc")
    put(tmp_path, "pack-1.dist-info/METADATA", "pack-1.dist-info/RECORD", "pack-1.dist-info/licenses/LICENSE")
    main(tmp_path)
    assert left(tmp_path) == {
        "pack/__init__.py",
        "pack/core.so",
        "pack-1.dist-info/METADATA",
        "pack-1.dist-info/licenses/LICENSE",
    }


@pytest.mark.parametrize(
    "line",
    [
        "from .tests import run_tests",
        "from . import core, tests",
        "import pack.tests",
        "    from pack.tests import x",
        "from pack import core, tests",
        "from pack import tests as _tests",
        "from . import (\n    core,\n    tests,\n)",
    ],
)
def test_tests_that_the_package_imports_stay(tmp_path, line):
    """h5py imports its tests when it is imported."""
    put(tmp_path, "pack/tests/__init__.py")
    (tmp_path / "pack/__init__.py").write_text(f"import os\n{line}\n")
    main(tmp_path)
    assert "pack/tests/__init__.py" in left(tmp_path)


def test_a_module_elsewhere_keeps_tests_too(tmp_path):
    """`tensorflow/__init__.py` imports `test` of a package two levels below it."""
    put(
        tmp_path,
        "flow/api/v2/test/__init__.py",
        "flow/api/v2/__init__.py",
        "flow/api/test/__init__.py",
        "other/a.py",
    )
    (tmp_path / "flow/__init__.py").write_text("from flow.api.v2 import test\n")
    (tmp_path / "other/a.py").write_text("from ..flow import tests\nimport flow.api.v2.test.deep\n")
    main(tmp_path)
    assert "flow/api/v2/test/__init__.py" in left(tmp_path)
    assert "flow/api/test/__init__.py" not in left(tmp_path)


def test_a_word_about_tests_keeps_nothing(tmp_path):
    """Only an import keeps a folder of tests."""
    put(tmp_path, "pack/tests/__init__.py")
    (tmp_path / "pack/__init__.py").write_text(
        '"""Run pytest pack.tests to test."""\nfrom .testing import check\n'
    )
    main(tmp_path)
    assert "pack/tests/__init__.py" not in left(tmp_path)


def test_installers_go_with_all_their_files(tmp_path):
    """Setuptools is a declared dependency of TensorFlow; its folders and its metadata are removed."""
    put(
        tmp_path,
        "setuptools/__init__.py",
        "_distutils_hack/__init__.py",
        "distutils-precedence.pth",
        "other/a.py",
    )
    (tmp_path / "setuptools-1.dist-info").mkdir()
    (tmp_path / "setuptools-1.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: setuptools\nVersion: 1\n"
    )
    (tmp_path / "setuptools-1.dist-info/RECORD").write_text(
        "setuptools/__init__.py,,\n_distutils_hack/__init__.py,,\ndistutils-precedence.pth,,\n"
        "setuptools-1.dist-info/METADATA,,\nsetuptools-1.dist-info/RECORD,,\n../../bin/tool,,\n"
    )
    main(tmp_path)
    assert left(tmp_path) == {"other/a.py"}
