"""Metrics, audit statistics and the promotion gate."""
