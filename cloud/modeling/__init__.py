"""Networks: backbones, the linear head on their embeddings, and novelty."""
