"""What Gleaner requires of an MQTT broker, as tests that any broker can be put under: `make test-broker`."""
