"""One thread of BLAS for computations with small matrices."""

import sys
from contextlib import AbstractContextManager

from threadpoolctl import ThreadpoolController

_found: tuple[int, ThreadpoolController] | None = None


def one_blas_thread() -> AbstractContextManager[object]:
    """Return a context in which every loaded BLAS uses one thread; on exit, as many as before.

    Small matrices: several threads of BLAS wait for each other, up to sixty times as long on busy cores.

    To find the loaded libraries takes half as long as to fit a head of 60 photos, so it is repeated only when
    modules were imported since: an import is what loads a BLAS. Import the one that is used before entering.
    """
    global _found  # noqa: PLW0603 - of the process, as the libraries are
    modules = len(sys.modules)
    if _found is None or _found[0] != modules:
        # Two threads may both look, and find the same.
        _found = modules, ThreadpoolController().select(user_api="blas")
    limited: AbstractContextManager[object] = _found[1].limit(limits=1)
    return limited
