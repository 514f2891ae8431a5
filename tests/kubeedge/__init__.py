"""A real KubeEdge on this machine, without containers, for the tests marked `kubeedge`."""
