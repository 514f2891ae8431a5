"""KubeEdge's side of an edge: EventBus messages and device twins."""
