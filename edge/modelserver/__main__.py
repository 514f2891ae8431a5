"""Run the model server: `python -m edge.modelserver`."""

import sys

from edge.modelserver.server import main

sys.exit(main())
