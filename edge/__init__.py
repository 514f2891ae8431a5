"""The edge: answers photos, harvests the ones worth learning from, and places new models."""
