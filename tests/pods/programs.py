"""The programs of the laboratory with pods: KubeEdge's, and the rest of a Kubernetes."""

from dataclasses import dataclass
from pathlib import Path

from tests.kubeedge import programs
from tests.kubeedge.programs import MODULE, Programs, compile_packages, run_go

_CONTROL = tuple(
    f"k8s.io/kubernetes/cmd/{name}" for name in ("kube-controller-manager", "kube-scheduler", "kube-proxy")
)
_KUBELET_MODULE = MODULE / "kubelet"
_KUBELET = "k8s.io/kubernetes/cmd/kubelet"
_S3 = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
_POLICIES = "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router@v2.1.0"


@dataclass(frozen=True, slots=True)
class PodPrograms:
    """All programs; they are in one folder of the cache."""

    core: Programs

    @property
    def controller_manager(self) -> Path:
        """Turns DaemonSets and Deployments into pods."""
        return self.core.folder / "kube-controller-manager"

    @property
    def scheduler(self) -> Path:
        """Binds pods to nodes."""
        return self.core.folder / "kube-scheduler"

    @property
    def proxy(self) -> Path:
        """Makes Services reachable on the cloud node."""
        return self.core.folder / "kube-proxy"

    @property
    def kubelet(self) -> Path:
        """Runs the pods of the cloud node."""
        return self.core.folder / "kubelet"

    @property
    def s3(self) -> Path:
        """The object store of `overlays/fleet`."""
        return self.core.folder / "versitygw"

    @property
    def policies(self) -> Path:
        """Enforces NetworkPolicies on the cloud node."""
        return self.core.folder / "kube-router"

    def missing(self) -> list[str]:
        """Return the names of the programs that are not built."""
        own = (self.controller_manager, self.scheduler, self.proxy, self.kubelet, self.s3, self.policies)
        return self.core.missing() + [program.name for program in own if not program.exists()]


def locate() -> PodPrograms:
    """Return the paths of the programs, built or not."""
    return PodPrograms(programs.locate())


def build() -> PodPrograms:
    """Build or download missing programs; needs Go and a C compiler, and takes minutes the first time.

    Raises:
        BuildError: Go or the C compiler is missing, or the build failed.
        PackageError: Debian's archive cannot be reached.
    """
    core = programs.build()
    compile_packages(MODULE, _CONTROL, core.folder)
    compile_packages(_KUBELET_MODULE, (_KUBELET,), core.folder)
    made = PodPrograms(core)
    for program, package in ((made.s3, _S3), (made.policies, _POLICIES)):
        if not program.exists():
            run_go(MODULE, "install", package, folder=core.folder)
    return made
