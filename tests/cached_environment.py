"""Environments of other programs, with pinned packages, installed once into the cache."""

import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from bus.files.cache_folder import default_cache
from bus.files.file_lock import exclusive_lock
from tests.conftest import ROOT

_INSTALL_S = 900.0


def programs(name: str, *, shown: str) -> Path:
    """Return the folder `bin` of an environment with the packages of `constraints/NAME.txt`.

    Args:
        name: Of the file.
        shown: Of the program, for the reason to skip a test where the packages cannot be installed.
    """
    pins = ROOT / f"constraints/{name}.txt"
    folder = default_cache() / f"{name}-{sha256(pins.read_bytes()).hexdigest()[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder.with_suffix(".lock"), timeout_s=_INSTALL_S):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            uv = str(Path(sys.executable).with_name("uv"))
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
            # Compiled now: the first start of a large program would take minutes.
            install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--require-hashes"]
            install += ["--python", folder / "bin/python"]
            done = subprocess.run([*install, "-r", pins], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"{shown} cannot be installed: {done.stderr[-300:]}")
            (folder / "complete").touch()
    return folder / "bin"
