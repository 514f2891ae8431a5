"""Command lines and configurations of the cloud side's programs and of containerd, as plain values."""

from pathlib import Path
from typing import Any

from tests.pods import addresses as at

Tree = dict[str, Any]  # a configuration as JSON, of which YAML is a superset


def etcd(folder: Path) -> list[str]:
    """Return etcd's options."""
    return [
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={at.ETCD}",
        f"--advertise-client-urls={at.ETCD}",
        f"--listen-peer-urls={at.ETCD_PEER}",
        f"--initial-advertise-peer-urls={at.ETCD_PEER}",
        f"--initial-cluster=default={at.ETCD_PEER}",
    ]


def apiserver(pki: Path) -> list[str]:
    """Return kube-apiserver's options: service accounts with RBAC, and a token with all rights."""
    return [
        f"--etcd-servers={at.ETCD}",
        "--bind-address=0.0.0.0",
        f"--advertise-address={at.CLOUD}",
        f"--secure-port={at.API_PORT}",
        f"--tls-cert-file={pki / 'apiserver.pem'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--token-auth-file={pki / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        f"--service-cluster-ip-range={at.SERVICES}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki / 'service-account.key'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        "--kubelet-preferred-address-types=InternalIP",
    ]


def controller_manager(folder: Path) -> list[str]:
    """Return kube-controller-manager's options."""
    return [
        f"--kubeconfig={folder / 'kubeconfig'}",
        f"--service-account-private-key-file={folder / 'pki/service-account.key'}",
        f"--root-ca-file={folder / 'pki/ca.pem'}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    ]


def scheduler(folder: Path) -> list[str]:
    """Return kube-scheduler's options."""
    return [f"--kubeconfig={folder / 'kubeconfig'}", "--leader-elect=false", "--bind-address=127.0.0.1"]


def kubeconfig(authority: Path, token: str, address: str) -> Tree:
    """Return a kubeconfig for the user with all rights."""
    server = f"https://{address}:{at.API_PORT}"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab", "namespace": "gleaner"}}],
        "users": [{"name": "lab", "user": {"token": token}}],
        "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority": str(authority)}}],
    }


def cloudcore(folder: Path) -> Tree:
    """Return cloudcore's configuration: the Router is on, and nothing changes the firewall."""
    return {
        "apiVersion": "cloudcore.config.kubeedge.io/v1alpha1",
        "kind": "CloudCore",
        "commonConfig": {"monitorServer": {"bindAddress": "127.0.0.1:9091"}},
        "kubeAPIConfig": {"kubeConfig": str(folder / "kubeconfig")},
        "modules": {
            "cloudHub": {
                "advertiseAddress": [at.CLOUD],
                "tlsCAFile": str(folder / "cloudcore/ca.crt"),
                "tlsCAKeyFile": str(folder / "cloudcore/ca.key"),
                "tlsCertFile": str(folder / "cloudcore/server.crt"),
                "tlsPrivateKeyFile": str(folder / "cloudcore/server.key"),
                "websocket": {"enable": True, "address": at.CLOUD, "port": at.WEBSOCKET},
                "quic": {"enable": True, "address": at.CLOUD, "port": at.QUIC},
                "https": {"enable": True, "address": at.CLOUD, "port": at.HTTPS},
                "unixsocket": {"enable": False, "address": f"unix://{folder / 'cloudcore.sock'}"},
            },
            "dynamicController": {"enable": True},
            "router": {
                "enable": True,
                "address": "0.0.0.0",
                "port": at.ROUTER,
            },  # in the cloud machine's own network
            "iptablesManager": {"enable": False},
        },
    }


def kubelet(folder: Path, *, cgroup: str) -> Tree:
    """Return the configuration of the cloud node's kubelet."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": at.CLOUD,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "clusterDNS": [at.DNS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": at.RUNTIME,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "failCgroupV1": False,
        "failSwapOn": False,
        "healthzPort": 0,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "imageMinimumGCAge": "24h",
        "localStorageCapacityIsolation": False,
        "oomScoreAdj": 0,
        "enforceNodeAllocatable": [],
        "resolvConf": str(folder / "upstream.conf"),
        "serverTLSBootstrap": False,
    }


def kube_proxy(folder: Path) -> Tree:
    """Return the configuration of the cloud node's kube-proxy."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": "0.0.0.0",  # in the cloud machine's own network
        "clientConnection": {"kubeconfig": str(folder / "kubeconfig")},
        "clusterCIDR": at.PODS.format(number=1),
        "mode": "iptables",
        "hostnameOverride": "cloud",
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        # These kernel settings are those of the whole machine: leave them.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
            "udpTimeout": "0s",
            "udpStreamTimeout": "0s",
        },
    }


def kube_router(folder: Path) -> list[str]:
    """Return kube-router's options: it enforces NetworkPolicies and does nothing else."""
    return [
        f"--kubeconfig={folder / 'kubeconfig'}",
        "--hostname-override=cloud",
        f"--service-cluster-ip-range={at.SERVICES}",
        "--run-firewall=true",
        "--run-router=false",
        "--run-service-proxy=false",
        "--enable-cni=false",
        "--health-port=0",
    ]


def cni(number: int) -> Tree:
    """Return the pod network of a machine: a bridge, behind the machine's address."""
    ranges = [[{"subnet": at.PODS.format(number=number)}]]
    return {
        "cniVersion": "0.4.0",
        "name": "gleaner",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]},
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


CONTAINERD = f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/gleaner-pods/state"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "/run/gleaner-pods/containerd.sock"
[ttrpc]
  address = "/run/gleaner-pods/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{at.PAUSE}"
  disable_apparmor = true
  # A virtual machine may withhold CAP_SYS_RESOURCE, and then no process can lower its oom_score_adj.
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
"""
"""containerd's configuration on every machine."""
