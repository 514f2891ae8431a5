"""Demonstration: one round of the whole loop on one machine, with every component as a separate process."""
