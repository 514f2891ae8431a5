"""The embedded model server: a process of its own that answers like tensorflow_model_server."""

from edge.modelserver.server import main

__all__ = ["main"]
