"""The gateway: the one process that knows KubeEdge's Router, between it and the cloud's broker."""
