"""Staged rollout of a version to edge nodes, releases, and the tuning of harvest policies."""
