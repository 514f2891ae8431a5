"""Benchmarks, each with a reference that is measured in the same run: `python -m bench --help`."""
