"""The models folder: versions, bundles, model cards and rollout states."""
