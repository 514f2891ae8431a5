"""Build the laboratory's programs from published Go modules; etcd is Debian's package."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bus.broker.debian_package import unpack
from bus.files.cache_folder import default_cache
from schemas.errors import PermanentError

MODULE = Path(__file__).resolve().parents[2] / "deploy/kubeedge/lab"
_KUBEEDGE = "github.com/kubeedge/kubeedge"
_PACKAGES = (
    f"{_KUBEEDGE}/cloud/cmd/cloudcore",
    f"{_KUBEEDGE}/edge/cmd/edgecore",
    "k8s.io/kubernetes/cmd/kube-apiserver",
)
_BUILD_S = 3 * 3600


class BuildError(PermanentError):
    """A program of the laboratory cannot be built or downloaded."""


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of the laboratory, in one folder of the cache."""

    folder: Path

    @property
    def cloudcore(self) -> Path:
        """KubeEdge's cloud side."""
        return self.folder / "cloudcore"

    @property
    def edgecore(self) -> Path:
        """KubeEdge's edge side."""
        return self.folder / "edgecore"

    @property
    def apiserver(self) -> Path:
        """The Kubernetes API server."""
        return self.folder / "kube-apiserver"

    @property
    def etcd(self) -> Path:
        """The database of the API server."""
        return self.folder / "etcd/usr/bin/etcd"

    @property
    def resource_definitions(self) -> list[Path]:
        """KubeEdge's CustomResourceDefinitions, one in each file."""
        return sorted((self.folder / "crds").rglob("*.yaml"))

    def missing(self) -> list[str]:
        """Return the names of the programs that are not built."""
        programs = (self.cloudcore, self.edgecore, self.apiserver, self.etcd)
        return [program.name for program in programs if not program.exists()]


def versions() -> dict[str, str]:
    """Return the releases of KubeEdge and Kubernetes that the Go module pins."""
    text = (MODULE / "go.mod").read_text(encoding="utf-8")
    patterns = {"kubeedge": rf"{_KUBEEDGE} (v\S+)", "kubernetes": r"k8s\.io/kubernetes => \S+ (v\S+)"}
    return {name: found[1] for name, pattern in patterns.items() if (found := re.search(pattern, text))}


def locate() -> Programs:
    """Return the paths of the programs of these versions, built or not."""
    content = (MODULE / "go.mod").read_bytes() + (MODULE / "go.sum").read_bytes()
    name = "_".join([*(f"{what}-{version}" for what, version in versions().items()), _digest(content)])
    return Programs(default_cache() / "kubeedge" / name)


def build() -> Programs:
    """Build or download missing programs; needs Go and a C compiler, and takes minutes the first time.

    Raises:
        BuildError: Go or the C compiler is missing, or the build failed.
        PackageError: Debian's archive cannot be reached.
    """
    programs = locate()
    if not programs.etcd.exists():
        unpack(("etcd-server",), programs.folder / "etcd")
    if set(programs.missing()) - {"etcd"}:
        compile_packages(MODULE, _PACKAGES, programs.folder)
        source = run_go(MODULE, "list", "-m", "-f", "{{.Dir}}", _KUBEEDGE).strip()
        shutil.copytree(Path(source) / "build/crds", programs.folder / "crds", dirs_exist_ok=True)
    return programs


def compile_packages(module: Path, packages: Sequence[str], folder: Path) -> None:
    """Build the programs of a module that are missing in a folder.

    Args:
        module: Folder of the Go module that pins them.
        packages: Their packages; the last part of each is the name of its program.
        folder: Where to write them.

    Raises:
        BuildError: Go or the C compiler is missing, or the build failed.
    """
    for tool, package in (("go", "golang-go, 1.24 or later"), ("gcc", "gcc")):
        if shutil.which(tool) is None:
            raise BuildError(f"cannot build the laboratory: no {tool} on the PATH", hint=f"install {package}")
    release = versions()
    names = {
        f"{_KUBEEDGE}/pkg/version.gitVersion": release["kubeedge"],
        "k8s.io/component-base/version.gitVersion": release["kubernetes"],
    }
    link = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in names.items())])
    for package in packages:
        name = package.rsplit("/", 1)[-1]
        if (folder / name).exists():
            continue
        # Built under another name and renamed, so that an interrupted build leaves no incomplete program.
        partial = folder / f"{name}.{os.getpid()}"
        run_go(module, "build", "-trimpath", "-ldflags", link, "-o", str(partial), package)
        partial.rename(folder / name)


def run_go(module: Path, *arguments: str, folder: Path | None = None) -> str:
    """Run a command of Go in a module and return what it wrote to stdout.

    Args:
        module: Folder of the module.
        arguments: Of the command.
        folder: Where `install` puts a program; the user's own if absent.

    Raises:
        BuildError: It failed.
    """
    done = subprocess.run(  # the user's Go, with fixed arguments
        ["go", *arguments],  # from the PATH
        cwd=module,
        env=os.environ | ({"GOBIN": str(folder)} if folder else {}),
        stdout=subprocess.PIPE,
        text=True,
        timeout=_BUILD_S,
        check=False,
    )
    if done.returncode:
        raise BuildError(f"go {arguments[0]} {arguments[-1]} failed with code {done.returncode}; see above")
    return done.stdout


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=4).hexdigest()
