"""The cloud: collects samples, keeps the dataset, trains, evaluates and releases models."""
