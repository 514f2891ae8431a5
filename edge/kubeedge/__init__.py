"""KubeEdge at the edge: the uplink over EventBus, and device twins."""
