"""KubeEdge's Rules: create those that the gateway needs, test them, and repair them."""
