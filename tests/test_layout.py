"""The layout of the packages, as `pyproject.toml` and docs/architecture.md describe it."""

import ast
import subprocess
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("gleaner", "schemas", "bus", "device", "edge", "cloud", "console", "cli", "demo")
MAX_MODULES = 14
TENSORFLOW_CONTRACT = "the edge handler knows no TensorFlow"
CONFLICT_MARKER = r"^(<{7}|>{7}|\|{7})( |$)"
SHARED_NAMES = {"config", "service", "__main__"}  # module names that may occur once in each sub-package


def folders(package: str) -> Iterator[Path]:
    """Yield a package and its sub-packages."""
    for init in sorted((ROOT / package).rglob("__init__.py")):
        yield init.parent


def modules(folder: Path) -> list[Path]:
    """Return the modules of a folder without its `__init__.py`."""
    return [path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]


def dotted(path: Path) -> str:
    """Return the import name of a module or package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def twice(places: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the names that occur in more than one place."""
    return {name: found for name, found in places.items() if len(found) > 1}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_with_modules_is_a_package(package):
    """A folder without `__init__.py` would be missed by import-linter and mypy."""
    missing = {
        name_of(path.parent)
        for path in (ROOT / package).rglob("*.py")
        if not (path.parent / "__init__.py").exists()
    }
    assert not missing


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_has_a_docstring(package):
    """Each `__init__.py` states what its package is for."""
    silent = [
        name_of(folder)
        for folder in folders(package)
        if not ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    ]
    assert silent == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_name_occurs_twice(package):
    """A module is found by its name alone; only `config.py` and `service.py` are the same everywhere."""
    places = defaultdict(list)
    for folder in folders(package):
        for path in modules(folder):
            if path.stem not in SHARED_NAMES:
                places[path.stem].append(name_of(path))
    assert twice(places) == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_class_name_occurs_twice(package):
    """A class is found by its name alone."""
    places = defaultdict(list)
    for folder in folders(package):
        for path in folder.glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(name_of(path))
    assert twice(places) == {}


@pytest.mark.parametrize("package", ["schemas", "bus", "device", "edge", "cloud", "console"])
def test_no_folder_has_too_many_modules(package):
    """A folder with more modules has more than one concept in it: make sub-packages."""
    counts = {name_of(folder): len(modules(folder)) for folder in folders(package)}
    assert {name: count for name, count in counts.items() if count > MAX_MODULES} == {}


def test_every_part_of_the_edge_is_forbidden_tensorflow():
    """The contract of import-linter names each module and sub-package of the edge but the model server."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = (one for one in contracts["contracts"] if one["name"] == TENSORFLOW_CONTRACT)
    edge = ROOT / "edge"
    parts = {*modules(edge), *(folder for folder in folders("edge") if folder.parent == edge)}
    wanted = {dotted(part) for part in parts} - {"edge.modelserver"}
    assert wanted == {name for name in contract["source_modules"] if name.startswith("edge.")}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_ships_its_types(package):
    """Without `py.typed`, type checkers ignore the annotations of an installed package."""
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout of git")
def test_no_tracked_file_has_a_merge_conflict():
    """Markers of an unfinished merge break code, and readers of a document see both versions."""
    search = ["git", "grep", "--name-only", "--text", "--extended-regexp", CONFLICT_MARKER]
    found = subprocess.run(search, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (found.stdout, found.returncode) == ("", 1), found.stderr  # 1: nothing found
