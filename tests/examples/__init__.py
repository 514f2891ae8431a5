"""The clients in `examples/`, and the published contract in other languages."""
