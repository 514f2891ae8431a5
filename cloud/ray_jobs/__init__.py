"""Embed the photos of a dataset on a Ray cluster, ahead of a command that needs them."""
