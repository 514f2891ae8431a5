"""What each process of the laboratory is told: command lines and configurations, as plain values.

KubeEdge reads YAML, of which JSON is a part.
"""

import contextlib
import random
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Transport = Literal["websocket", "quic"]
HOST = "127.0.0.1"
_STEADY_PORTS = range(20_000, 32_000)
Tree = dict[str, Any]  # a configuration as JSON


@dataclass(frozen=True, slots=True)
class BrokerConnection:
    """How an edgecore is connected to cloudcore.

    Args:
        transport: One of KubeEdge's two.
        messages_per_s: Most messages that it sends up, `messageQPS`; bursts may have twice as many.
    """

    transport: Transport = "websocket"
    messages_per_s: int = 30


DEFAULT_LINK = BrokerConnection()


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of the cloud side, all on loopback; QUIC's is for UDP."""

    etcd: int
    etcd_peer: int
    apiserver: int
    websocket: int
    quic: int
    https: int
    monitor: int
    router: int

    @classmethod
    def free(cls) -> "Ports":
        """Return ports that are free now."""
        chosen: set[int] = set()
        while len(chosen) < len(cls.__slots__):
            chosen.add(steady_port())
        return cls(*chosen)


def steady_port() -> int:
    """Return a free port that stays free while its service is down.

    It is below those that Linux gives to outgoing connections: one of these would be taken sooner or later.
    """
    while True:
        port = random.choice(_STEADY_PORTS)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind((HOST, port))
            return port


def etcd_options(ports: Ports, folder: Path) -> list[str]:
    """Return etcd's options."""
    client, peer = f"http://{HOST}:{ports.etcd}", f"http://{HOST}:{ports.etcd_peer}"
    return [
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
    ]


def apiserver_options(ports: Ports, folder: Path) -> list[str]:
    """Return kube-apiserver's options: who has the token may do everything.

    It makes its own certificate. There are no controllers here, hence no service accounts for pods.
    """
    return [
        f"--etcd-servers=http://{HOST}:{ports.etcd}",
        f"--bind-address={HOST}",
        f"--advertise-address={HOST}",
        "--endpoint-reconciler-type=none",
        f"--secure-port={ports.apiserver}",
        f"--cert-dir={folder / 'apiserver'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--anonymous-auth=false",
        "--authorization-mode=AlwaysAllow",
        "--disable-admission-plugins=ServiceAccount",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'service-account.key'}",
        f"--service-account-signing-key-file={folder / 'service-account.key'}",
    ]


def kubeconfig(ports: Ports, authority: Path, token: str) -> Tree:
    """Return how kubectl and cloudcore reach the API server."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        "users": [{"name": "lab", "user": {"token": token}}],
        "clusters": [
            {
                "name": "lab",
                "cluster": {
                    "server": f"https://{HOST}:{ports.apiserver}",
                    "certificate-authority": str(authority),
                },
            }
        ],
    }


def cloudcore(ports: Ports, folder: Path) -> Tree:
    """Return cloudcore's configuration: the router on, and nothing that touches the machine's firewall."""
    return {
        "apiVersion": "cloudcore.config.kubeedge.io/v1alpha1",
        "kind": "CloudCore",
        "commonConfig": {"monitorServer": {"bindAddress": f"{HOST}:{ports.monitor}"}},
        "kubeAPIConfig": {"kubeConfig": str(folder / "kubeconfig")},
        "modules": {
            "cloudHub": {
                "advertiseAddress": [HOST],
                # None of these exists: cloudcore makes its authority and keeps it in the cluster.
                "tlsCAFile": str(folder / "cloudcore/ca.crt"),
                "tlsCAKeyFile": str(folder / "cloudcore/ca.key"),
                "tlsCertFile": str(folder / "cloudcore/server.crt"),
                "tlsPrivateKeyFile": str(folder / "cloudcore/server.key"),
                "websocket": {"enable": True, "address": HOST, "port": ports.websocket},
                "quic": {"enable": True, "address": HOST, "port": ports.quic},
                "https": {"enable": True, "address": HOST, "port": ports.https},
                "unixsocket": {"enable": False, "address": f"unix://{folder / 'cloudcore.sock'}"},
            },
            "router": {"enable": True, "address": HOST, "port": ports.router},
            "iptablesManager": {"enable": False},
        },
    }


def edgecore(
    ports: Ports, folder: Path, *, name: str, broker_port: int, link: BrokerConnection, token: str
) -> Tree:
    """Return edgecore's configuration: no containers, EventBus to the node's own mosquitto.

    Args:
        ports: Of the cloud side.
        folder: Of the node.
        name: Of the node.
        broker_port: Of its mosquitto.
        link: To cloudcore.
        token: With which it asks cloudcore for a certificate the first time.
    """
    return {
        "apiVersion": "edgecore.config.kubeedge.io/v1alpha2",
        "kind": "EdgeCore",
        "database": {"dataSource": str(folder / "edgecore.db")},
        "modules": {
            "edged": {"enable": False, "hostnameOverride": name},
            "deviceTwin": {"enable": True, "dmiSockPath": str(folder)},
            "edgeHub": {
                "enable": True,
                "token": token,
                "httpServer": f"https://{HOST}:{ports.https}",
                "tlsCaFile": str(folder / "ca.crt"),
                "tlsCertFile": str(folder / "node.crt"),
                "tlsPrivateKeyFile": str(folder / "node.key"),
                "messageQPS": link.messages_per_s,
                "messageBurst": 2 * link.messages_per_s,
                "websocket": {"enable": link.transport == "websocket", "server": f"{HOST}:{ports.websocket}"},
                "quic": {"enable": link.transport == "quic", "server": f"{HOST}:{ports.quic}"},
            },
            "eventBus": {"enable": True, "mqttMode": 2, "mqttServerExternal": f"tcp://{HOST}:{broker_port}"},
        },
    }
