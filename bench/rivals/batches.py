"""Batching of the rivals: the batch size is that of the edge handler."""

PHOTOS = 16
LATENCY_S = 0.01
"""Seconds that LitServe waits for a full batch; the examples of its documentation use 10 to 50 ms."""
TIMEOUT_S = 60
