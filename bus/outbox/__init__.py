"""Durable queue in SQLite whose entries stay until the receiver answers."""
