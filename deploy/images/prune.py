"""Remove from a folder of installed packages what no program needs at run time: `prune.py DIR`.

Runs in the build stage of an image with Python's standard library alone.
"""

import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

DROPPED = ("libclang", "pip", "setuptools", "wheel")
"""Distributions that are declared as dependencies, by TensorFlow, and are only used to build or to bind."""

_FOLDERS = {"__pycache__", "include"}
_TEST_FOLDERS = {"test", "tests", "testdata", "test_data"}
_SOURCES = {
    *(".a", ".c", ".cc", ".cmake", ".cpp", ".cu", ".f90", ".h", ".hh", ".hpp", ".inc", ".lib"),
    *(".pxd", ".pxi", ".pyi", ".pyx"),
}
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n]*)|import[ \t]+([\w.]+))",
    re.MULTILINE,
)
_RECORDS = {"INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "uv_cache.json"}


def main(tree: Path) -> None:
    """Remove everything that is not needed and print how much that was."""
    before = size(tree)
    for path in [*_dropped(tree), *_unneeded(tree)]:
        _remove(path)
    print(f"{tree}: {before / 1e6:.0f} MB installed, {size(tree) / 1e6:.0f} MB needed")


def size(tree: Path) -> int:
    """Return the bytes of all files below a folder, without links."""
    return sum(path.stat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink())


def _dropped(tree: Path) -> Iterator[Path]:
    """Yield the files and folders of the distributions that are not needed."""
    for found in distributions(path=[str(tree)]):
        if found.name in DROPPED:
            yield from _tops(tree, found)


def _tops(tree: Path, found: Distribution) -> set[Path]:
    """Return the top-level files and folders of a distribution."""
    names = {file.parts[0] for file in found.files or () if file.parts[0] not in {"..", "bin"}}
    return {tree / name for name in names}


def _unneeded(tree: Path) -> Iterator[Path]:
    """Yield folders and files by their kind: tests, headers, sources, stubs, install records."""
    used = _imported(tree)
    for path in sorted(tree.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            tests = path.name in _TEST_FOLDERS and ".".join(path.relative_to(tree).parts) not in used
            if path.name in _FOLDERS or tests:
                yield path
        elif path.suffix in _SOURCES or (path.name in _RECORDS and path.parent.suffix == ".dist-info"):
            yield path


def _imported(tree: Path) -> set[str]:
    """Return the dotted names that end in a folder of tests and are imported by modules outside such folders.

    h5py imports its tests when it is imported, and `tf.test` is part of TensorFlow.
    """
    found: set[str] = set()
    for file in tree.rglob("*.py"):
        inside = file.relative_to(tree).parent.parts
        if not _TEST_FOLDERS.intersection(inside):
            for module, names in _imports(file.read_text(errors="replace"), inside):
                dotted = module.split(".")
                found |= {
                    ".".join(dotted[: end + 1]) for end, word in enumerate(dotted) if word in _TEST_FOLDERS
                }
                found |= {f"{module}.{name}" for name in _TEST_FOLDERS.intersection(names)}
    return found


def _imports(text: str, package: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the modules that a module imports, each with the names that it takes from it."""
    for match in _IMPORT.finditer(text):
        dots, module, names, plain = match.groups(default="")
        if plain:
            yield plain, []
            continue
        above = package[: len(package) - len(dots) + 1] if dots else ()
        yield ".".join([*above, *([module] if module else [])]), re.findall(r"\w+", names)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
