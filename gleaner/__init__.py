"""The installed Gleaner; importing it makes `bus`, `schemas`, `edge` and the others importable.

A wheel has these packages inside this folder, so that none of their names collides with another project's in
site-packages. A checkout has them beside it. Both use the same import names.
"""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
ROOT = _HERE if (_HERE / "cli").is_dir() else _HERE.parent
"""Folder of the packages: this one in an installed wheel, the root of a checkout otherwise."""

# First, because another `cli` or `schemas` may be anywhere on the path; once, because children inherit it.
if sys.path[:1] != [str(ROOT)]:
    sys.path.insert(0, str(ROOT))
