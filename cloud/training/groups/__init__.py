"""Heads of groups of devices: what they are fitted to, and which group gets which."""
