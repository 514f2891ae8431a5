"""Model server with the gRPC API of tensorflow_model_server; run it as a separate process."""

from edge.modelserver.server import main

__all__ = ["main"]
