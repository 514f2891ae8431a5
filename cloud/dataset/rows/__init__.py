"""Rows of the dataset: how they change, and the transaction that writes them."""
