"""How the rivals batch: as many photos as the edge handler takes into one call."""

PHOTOS = 16
LATENCY_S = 0.01
"""How long LitServe waits for a batch to fill; its documentation's examples have 10 to 50 ms."""
TIMEOUT_S = 60
