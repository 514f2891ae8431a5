"""Import a library without the optional packages that it looks for and that nothing here needs."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from types import ModuleType


@contextmanager
def not_found(*packages: str) -> Iterator[None]:
    """Make imports of packages fail in a block, as if they were not installed.

    A package that is imported already stays as it is. Call this before other threads import anything.
    """
    finder = _NotFound(packages)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _NotFound(MetaPathFinder):
    """A finder that refuses packages, asked before those that would find them."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = frozenset(packages)

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> None:
        if fullname in self._packages:
            raise ModuleNotFoundError(fullname, name=fullname)
