"""Cameras: hardware of this machine, and folders of photos that are replayed."""
