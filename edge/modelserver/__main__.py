"""`python -m edge.modelserver`: the server as a command."""

import sys

from edge.modelserver.server import main

sys.exit(main())
