"""Retraining loop: drift signals, triggers and rounds of training."""
