"""Odd pictures and seeded mutations of them, and the comparison of all decoders on a picture."""
