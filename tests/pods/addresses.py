"""Addresses and ports of the laboratory's cloud side."""

CLOUD = "10.230.0.1"
"""The cloud machine, as the edge nodes reach it."""
CLOUD_LAN = "10.230.101.1"
"""The cloud machine, as this machine reaches it."""
SERVICES = "10.96.0.0/24"
API_SERVICE = "10.96.0.1"
DNS = "10.96.0.2"
"""Address of the cloud's name server, on the cloud machine's loopback interface."""
PODS = "10.231.{number}.0/24"
"""Pods of a machine that do not use its own network."""
API_PORT = 6443
ETCD = "http://127.0.0.1:2379"
ETCD_PEER = "http://127.0.0.1:2380"
WEBSOCKET, QUIC, HTTPS, ROUTER = 10000, 10001, 10002, 9443
RUNTIME = "unix:///run/gleaner-pods/containerd.sock"
PAUSE = "localhost/gleaner-pause:1"
