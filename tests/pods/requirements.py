"""Explain why the laboratory cannot run on a machine."""

import os
import shutil
from pathlib import Path

_TOOLS = {
    "containerd": "containerd",
    "runc": "runc",
    "ipset": "ipset",
    "iptables": "iptables",
    "dnsmasq": "dnsmasq-base",
    "conntrack": "conntrack",
    "nsenter": "util-linux",
    "ip": "iproute2",
    "openssl": "openssl",
}
_PLUGINS = Path("/usr/lib/cni/bridge")


def missing() -> str:
    """Return why the laboratory cannot run here, or an empty text."""
    packages = {package for tool, package in _TOOLS.items() if shutil.which(tool) is None}
    packages |= set() if _PLUGINS.exists() else {"containernetworking-plugins"}
    lacks = {
        "root, because namespaces, cgroups and overlay file systems are made": os.geteuid() != 0,
        "Debian, whose containerd and network plugins are used": not Path("/etc/debian_version").exists(),
        "cgroups version 1; version 2 was not tried": not Path("/sys/fs/cgroup/memory/cgroup.procs").exists(),
        "kubectl on the PATH": shutil.which("kubectl") is None,
        f"apt-get install --no-install-recommends {' '.join(sorted(packages))}": bool(packages),
    }
    return next((f"pods need {what}" for what, lacking in lacks.items() if lacking), "")
