"""Measurements: each module prints one JSON object, with its comparison side by side in the same run."""
