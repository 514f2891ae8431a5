"""Fetch, verify, smoke-test and serve model releases."""
