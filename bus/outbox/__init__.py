"""Durable outbox in SQLite: a message stays until its receiver has answered."""
