"""The cloud side: collects samples, keeps the dataset, trains, evaluates and releases models."""
