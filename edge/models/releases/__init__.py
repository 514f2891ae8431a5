"""Receive releases, and accept those that are signed and not replayed."""
