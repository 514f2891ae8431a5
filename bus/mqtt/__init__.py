"""MQTT client: typed topics, manual acknowledgement, reconnection."""
