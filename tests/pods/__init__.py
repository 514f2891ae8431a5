"""A real KubeEdge with real pods, each node a set of namespaces, for the tests marked `pods`."""
