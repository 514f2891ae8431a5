"""Configuration of edgecore with pods."""

from dataclasses import dataclass
from typing import Literal

from tests.pods import addresses as at
from tests.pods.settings import Tree

TLS_PORT = 1885
"""Of the listener of the node's broker for EventBus over TLS, where there is one."""


@dataclass(frozen=True, slots=True)
class EdgeLink:
    """How an edgecore connects to its broker and to cloudcore.

    Args:
        transport: One of KubeEdge's two transports.
        broker_tls: Whether EventBus reaches the node's broker over TLS. It needs a certificate then: that of
            the bridge, in whose place it is.
    """

    transport: Literal["websocket", "quic"] = "websocket"
    broker_tls: bool = False


def edgecore(*, name: str, address: str, cgroup: str, token: str, password: str, link: EdgeLink) -> Tree:
    """Return edgecore's configuration, with edged, and EventBus at the broker that is one of the node's pods.

    Args:
        name: Name of the node.
        address: Its address towards the cloud.
        cgroup: Name of the cgroup of its pods.
        token: Token for requesting its first certificate from cloudcore.
        password: Password of EventBus at the broker.
        link: How it connects.
    """
    event_bus: Tree = {
        "enable": True,
        "mqttMode": 2,
        "mqttServerExternal": "tcp://127.0.0.1:1883",
        "mqttUsername": f"{name}.eventbus",
        "mqttPassword": password,
    }
    if link.broker_tls:
        event_bus |= {
            "mqttServerExternal": f"ssl://127.0.0.1:{TLS_PORT}",
            "eventBusTLS": {
                "enable": True,
                "tlsMqttCAFile": "/etc/gleaner/ca.pem",
                "tlsMqttCertFile": "/etc/gleaner/bridge.pem",
                "tlsMqttPrivateKeyFile": "/etc/gleaner/bridge.key",
            },
        }
    return {
        "apiVersion": "edgecore.config.kubeedge.io/v1alpha2",
        "kind": "EdgeCore",
        "database": {"dataSource": "/var/lib/kubeedge/edgecore.db"},
        "modules": {
            "edged": {
                "enable": True,
                "hostnameOverride": name,
                "nodeIP": address,
                "podSandboxImage": at.PAUSE,
                "reportEvent": True,
                "tailoredKubeletConfig": {
                    "address": "127.0.0.1",
                    "cgroupDriver": "cgroupfs",
                    "cgroupRoot": f"/{cgroup}",
                    "containerRuntimeEndpoint": at.RUNTIME,
                    "imageServiceEndpoint": at.RUNTIME,
                    "evictionHard": {
                        "memory.available": "100Mi",
                        "nodefs.available": "1%",
                        "imagefs.available": "1%",
                    },
                    "imageGCHighThresholdPercent": 100,
                    "imageGCLowThresholdPercent": 99,
                    "maxPods": 20,
                    "oomScoreAdj": 0,
                },
            },
            "edgeHub": {
                "enable": True,
                "token": token,
                "httpServer": f"https://{at.CLOUD}:{at.HTTPS}",
                "tlsCaFile": "/etc/kubeedge/ca/rootCA.crt",
                "tlsCertFile": "/etc/kubeedge/certs/server.crt",
                "tlsPrivateKeyFile": "/etc/kubeedge/certs/server.key",
                "websocket": {
                    "enable": link.transport == "websocket",
                    "server": f"{at.CLOUD}:{at.WEBSOCKET}",
                },
                "quic": {"enable": link.transport == "quic", "server": f"{at.CLOUD}:{at.QUIC}"},
            },
            "eventBus": event_bus,
        },
    }
