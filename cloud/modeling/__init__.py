"""Backbones, the linear head on their embeddings, and the novelty score."""
