"""Bring the bundle of a release to this node's disk, whole or by the parts that it lacks. Blocking."""
