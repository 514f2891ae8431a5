"""The dataset: one Lance table of samples, labels and their history."""
