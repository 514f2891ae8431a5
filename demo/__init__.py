"""The demonstration: the whole loop on one machine, as separate processes."""
