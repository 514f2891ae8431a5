"""Train a model version from the dataset."""
