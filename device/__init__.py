"""Device side: cameras, and the agent that publishes their photos and records the results."""
