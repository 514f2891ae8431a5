"""A real KubeEdge on this machine, without containers: what the tests marked `kubeedge` run on."""
