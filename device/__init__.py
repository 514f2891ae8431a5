"""The device: cameras, and the agent that publishes what they take."""
