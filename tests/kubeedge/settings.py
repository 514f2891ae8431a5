"""Command lines and configurations of the laboratory's processes, as plain values.

KubeEdge reads YAML, a superset of JSON.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bus.broker.process import free_port

Transport = Literal["websocket", "quic"]
HOST = "127.0.0.1"
Tree = dict[str, Any]  # a configuration as JSON


@dataclass(frozen=True, slots=True)
class BrokerConnection:
    """Connection of an edgecore to cloudcore.

    Args:
        transport: One of KubeEdge's two transports.
        messages_per_s: Maximum rate of messages to the cloud, `messageQPS`; bursts may be twice as fast.
    """

    transport: Transport = "websocket"
    messages_per_s: int = 30


DEFAULT_LINK = BrokerConnection()


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of the cloud side, on loopback; the one of QUIC is a UDP port."""

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
        """Reserve free ports."""
        return cls(*(free_port() for _ in cls.__slots__))


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
    """Return kube-apiserver's options; the token gives access to everything.

    It creates its own certificate. There are no controllers, hence no service accounts for pods.
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
    """Return the kubeconfig of kubectl and cloudcore."""
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
    """Return cloudcore's configuration: Router on, everything off that changes the firewall."""
    return {
        "apiVersion": "cloudcore.config.kubeedge.io/v1alpha1",
        "kind": "CloudCore",
        "commonConfig": {"monitorServer": {"bindAddress": f"{HOST}:{ports.monitor}"}},
        "kubeAPIConfig": {"kubeConfig": str(folder / "kubeconfig")},
        "modules": {
            "cloudHub": {
                "advertiseAddress": [HOST],
                # None of these files exists: cloudcore creates its CA and stores it in the cluster.
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
        ports: Ports of the cloud side.
        folder: Folder of the node.
        name: Name of the node.
        broker_port: Port of its mosquitto.
        link: Connection to cloudcore.
        token: Token for requesting its first certificate from cloudcore.
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
