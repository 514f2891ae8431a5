"""Monitoring: count requests and their durations for Prometheus, as tensorflow_model_server does."""
