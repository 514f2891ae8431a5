"""Gateway between the cloud's broker and KubeEdge's Router, and the Rules that it needs."""
