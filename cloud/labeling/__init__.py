"""Decide labels: teacher ensemble, label errors and the review queue."""
