"""gRPC client of the model server, and the traffic split between two versions."""
