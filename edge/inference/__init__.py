"""Validate, queue, classify and answer photos."""
