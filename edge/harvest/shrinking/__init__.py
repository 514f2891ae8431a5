"""Decode photos and shrink them to training size, after their answers and in threads."""
