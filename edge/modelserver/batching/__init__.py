"""Batching: merge concurrent calls, as tensorflow_model_server does."""
