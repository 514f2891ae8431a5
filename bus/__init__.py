"""The bus: one healing MQTT connection, the outbox, and the broker itself."""
