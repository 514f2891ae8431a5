"""Metrics, audits and the gate that decides on promotion."""
