"""Run the `gleaner` command: `python -P -m gleaner`. `-P` leaves the working folder off the import path."""

import sys

from cli.main import main  # found because the import of the package `gleaner` has completed the import path

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
