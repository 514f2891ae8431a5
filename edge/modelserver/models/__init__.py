"""Versions of the served models: find, load, warm up and unload them."""
