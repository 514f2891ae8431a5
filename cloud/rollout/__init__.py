"""Staged rollout of a version to edge nodes, and the harvest policy."""
