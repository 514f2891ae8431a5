"""Run a module of Gleaner as a program: `python -P -m gleaner.module edge.modelserver ARGUMENTS`.

Child processes are started so: a wheel has the modules where `python -m` alone does not look.
"""

import runpy
import sys

if __name__ == "__main__":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
