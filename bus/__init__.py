"""MQTT client with reconnect, durable outbox, broker, KubeEdge gateway, and their security."""
