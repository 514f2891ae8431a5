"""Predict, Classify and Regress requests: check, run and answer them."""
