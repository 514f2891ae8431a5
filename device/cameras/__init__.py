"""Cameras: hardware, files replayed, and synthetic photos."""
