"""The machine and the commit of a measurement."""

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).resolve().parent.parent
_LIBRARIES = (
    "aiomqtt", "grpcio", "keras", "msgpack", "msgspec", "numpy", "paho-mqtt", "pillow", "pyarrow", "pylance",
    "tensorflow", "tensorflow-serving-api",
)  # fmt: skip
_INSTRUCTIONS = (
    "avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp",
    "i8mm",
)  # fmt: skip
"""What the runtimes of networks use, as Linux calls it."""


class Machine(Struct, frozen=True, kw_only=True):
    """Hardware and software that figures depend on.

    Args:
        load: Load average of the last minute when the measurement started.
    """

    processor: str
    cores: int
    memory_gb: float
    system: str
    python: str
    libraries: dict[str, str]
    load: float
    instructions: list[str] = []

    @property
    def name(self) -> str:
        """A name for files: processor, cores and instruction sets."""
        words = [self.processor, str(self.cores), "cores", *self.instructions]
        return re.sub("[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")


def facts() -> Machine:
    """Return the facts of this machine."""
    return Machine(
        processor=_figure_name("/proc/cpuinfo", "model name") or platform.machine(),
        cores=len(os.sched_getaffinity(0)),  # only those that this process may run on
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        libraries={name: found for name in _LIBRARIES if (found := _version(name))},
        load=round(os.getloadavg()[0], 2),
        instructions=[name for name in _INSTRUCTIONS if name in _instructions()],
    )


def _instructions() -> list[str]:
    return (_figure_name("/proc/cpuinfo", "flags") or _figure_name("/proc/cpuinfo", "Features") or "").split()


def commit() -> str:
    """Return the commit of this checkout, with a `+` if files were changed; `unknown` outside of git."""
    head = _git("rev-parse", "HEAD")
    return "unknown" if head is None else head + ("+" if _git("status", "--porcelain") else "")


def _git(*words: str) -> str | None:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603, S607  # fixed arguments
    return done.stdout.strip() if done.returncode == 0 else None


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _figure_name(path: str, name: str) -> str | None:
    """Return the value of a name in a file of `name : value` lines."""
    lines = Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)
