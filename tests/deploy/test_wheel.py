"""The wheel in environments without the checkout."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

from bus.broker.process import free_port
from cli.cloud.commands import COMMANDS as CLOUD_COMMANDS
from cli.main import COMMANDS
from tests.conftest import DEADLINE_S, ROOT, jpeg

MIB = 1 << 20
BASE = ("aiomqtt", "paho-mqtt", "msgpack", "msgspec", "prometheus-client", "structlog", "shtab")
MOST_MIB = {
    "": 10, "device": 30, "edge": 120, "provision": 30, "gateway": 30, "notify": 30, "litert": 200, "lan": 20,
    "http": 30, "heic": 60, "traces": 30, "usb": 240, "edge,damage": 150, "onnx": 110, "mlflow": 110,
    "s3": 60,
}  # fmt: skip
"""Combinations that are installed, and their sizes."""
LARGE_MIB = {"console": 720, "modelserver": 2250, "cloud": 2850, "demo": 2900, "cloud,ray": 3100}
"""Large extras, each used by a separate test, with their sizes."""
MODULE = {
    "http": "aiohttp", "usb": "cv2", "heic": "pillow_heif", "edge,damage": "simplejpeg", "onnx": "onnx",
    "lan": "zeroconf", "traces": "opentelemetry.sdk", "mlflow": "mlflow", "s3": "s3fs",
}  # fmt: skip
"""What an extra without its own command adds."""
ARM = (
    "device", "usb", "http", "heic", "lan", "onnx", "edge", "modelserver", "litert", "cloud", "console",
    "gateway", "notify", "provision", "traces",
)  # fmt: skip
INSTALL_S = 900
# Runs each command in one process, with an import path of the wheel and the base dependencies alone.
_EACH_COMMAND = """
import contextlib, io, json, sys, traceback
import gleaner
from cli.main import main
found = {}
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
        except BaseException:
            code = traceback.format_exc()
    found[" ".join(words)] = [code, err.getvalue()]
print(json.dumps(found))
"""
NEEDS = {
    "device --camera drawn": "device",
    "edge": "edge",
    "mirror --origin http://127.0.0.1/models": "edge",
    "modelserver --model_name=pets --model_base_path=/nowhere": "modelserver",
    "console": "console",
    "gateway": "gateway",
    "deploy verify --check --nodes edge-1": "gateway",
    "notify --urls-file urls": "notify",
    "provision site --cloud localhost": "provision",
    "up": "demo",
    "cloud import photos": "cloud",
    "cloud export out": "cloud",
    "cloud list": "cloud",
    "cloud label 1.jpg cat": "cloud",
    "cloud relabel 1.jpg cat": "cloud",
    "cloud rename-class cat dog": "cloud",
    "cloud merge-class cat dog": "cloud",
    "cloud forget --all": "cloud",
    "cloud retain --max-size 1G": "cloud",
    "cloud repair": "cloud",
    "cloud collect": "cloud",
    "cloud teach": "cloud",
    "cloud train": "cloud",
    "cloud adopt urls --classes cat,dog": "cloud",
    "cloud compare 1 2": "cloud",
    "cloud evaluate": "cloud",
    "cloud round": "cloud",
    "cloud watch": "cloud",
    "cloud release urls": "cloud",
    "cloud rollout urls --nodes edge-1": "cloud",
    "cloud steer pause": "cloud",
    "cloud policy": "cloud",
    "cloud status": "cloud",
    "cloud review": "cloud",
    "cloud doubts": "cloud",
}
BASE_COMMANDS = {
    "send", "tail", "check", "doctor", "broker", "completion", "cloud retire",
    "schema", "demo",  # of a checkout
}  # fmt: skip
"""Commands that need no extra."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder as site-packages is after the installation of the wheel without an extra."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    for name in BASE:
        for top in {file.parts[0] for file in distribution(name).files or () if file.parts[0] != ".."}:
            source = Path(str(distribution(name).locate_file(top)))
            if source.exists() and not (folder / top).exists():
                (folder / top).symlink_to(source)
    return folder


def run(path: list[Path], *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with these folders and its standard library as the whole import path."""
    return subprocess.run(
        [sys.executable, "-S", *words],
        cwd=cwd, env={"PYTHONPATH": os.pathsep.join(map(str, path)), "HOME": str(cwd)},
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip


def test_the_wheel_takes_one_name_in_site_packages(wheel):
    """All packages are inside `gleaner`; `bus`, `cli` and `schemas` stay free for other projects."""
    with zipfile.ZipFile(wheel) as archive:
        folders = {name.partition("/")[0] for name in archive.namelist()}
        assert "gleaner/edge/serving/messages_pb2.py" in archive.namelist()
    about = wheel.name[: wheel.name.index("-py3")]
    assert folders == {"gleaner", f"{about}.dist-info", f"{about}.data"}  # the last has the man page


def test_foreign_modules_of_the_same_names_do_no_harm(installed, tmp_path):
    """Neither a `cli.py` or `gleaner.py` in the working folder nor a `bus` in site-packages is imported."""
    others, work = tmp_path / "others", tmp_path / "work"
    for folder in (others, work):
        for name in ("schemas", "bus", "edge", "cloud", "device"):
            (folder / name).mkdir(parents=True)
            (folder / name / "__init__.py").write_text("raise SystemExit('a foreign module')")
        (folder / "cli.py").write_text("raise SystemExit('a foreign module')")
    (work / "gleaner.py").write_text("raise SystemExit('a foreign module')")
    path = [others, installed, Path(sysconfig.get_paths()["purelib"])]
    for words, said in (
        (("gleaner", "--version"), "gleaner "),
        (("gleaner", "edge", "--help"), "usage: gleaner edge"),
        (("gleaner.module", "cloud.retraining.worker", "--help"), ""),
    ):
        done = run(path, "-P", "-m", *words, cwd=work)
        assert "a foreign module" not in done.stdout + done.stderr
        assert done.stdout.startswith(said), done.stderr


def test_a_missing_extra_is_a_sentence_with_the_command_to_type(installed, wheel, tmp_path):
    """Each command that needs an extra names it, in one line with exit code 1; no traceback."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "urls").write_text("json://127.0.0.1")
    words = json.dumps([command.split() for command in NEEDS])
    done = run([installed], "-P", "-c", _EACH_COMMAND, words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for command, (code, said) in json.loads(done.stdout).items():
        assert code == 1, (command, code, said)
        assert said.count("\n") == 1, (command, said)
        assert f"pip install '{wheel.name}[{NEEDS[command]}]'" in said, (command, said)


def test_every_command_is_tried_without_its_extra():
    """A new command is in one of the two tables above."""
    names = {name for name in COMMANDS if name != "cloud"} | {f"cloud {name}" for name in CLOUD_COMMANDS}
    tried = {" ".join(words.split()[: 1 + words.startswith("cloud ")]) for words in NEEDS}
    assert tried | BASE_COMMANDS == names
    assert not tried & BASE_COMMANDS


def test_every_extra_is_installed_and_named_by_a_sentence():
    """Each extra of pyproject.toml; `damage` alone is missed silently, as an edge works without it."""
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    combinations = (*MOST_MIB, *LARGE_MIB)
    assert {extra for combination in combinations for extra in combination.split(",") if extra} == extras
    packages = ("bus", "cli", "cloud", "device", "edge", "schemas")
    source = "".join(path.read_text() for package in packages for path in (ROOT / package).rglob("*.py"))
    named = set(re.findall(r"""install_command\(["'](\w+)["']\)""", source)) | set(NEEDS.values())
    assert extras - named == {"damage"}


def test_help_of_every_command_needs_no_extra(installed, tmp_path):
    """`gleaner COMMAND --help` works before the extra is installed."""
    # The model server has the flags of tensorflow_model_server, which are declared with its gRPC services.
    words = json.dumps([[name, "--help"] for name in COMMANDS if name != "modelserver"])
    done = run([installed], "-P", "-c", _EACH_COMMAND, words, cwd=tmp_path)
    assert {name: code for name, (code, _) in json.loads(done.stdout).items() if code != 0} == {}


@pytest.mark.wheel
@pytest.mark.timeout(INSTALL_S)
@pytest.mark.parametrize("extra", MOST_MIB)
def test_an_extra_is_small_and_runs(wheel, tmp_path, extra):
    """Installed from a package index into a new environment, each side stays below its size."""
    python, size_mib = environment(wheel, extra, tmp_path / "venv")
    (site,) = (tmp_path / "venv/lib").glob("python3*/site-packages")
    assert size_mib < MOST_MIB[extra]
    assert not (site / "tensorflow").exists()
    if extra in MODULE:
        subprocess.run([python, "-c", f"import {MODULE[extra]}"], cwd=tmp_path, check=True)
    command = extra if extra in COMMANDS else "tail"
    done = subprocess.run([python.with_name("gleaner"), command, "--help"], cwd=tmp_path, check=False)
    assert done.returncode == 0


def environment(wheel: Path, extra: str, folder: Path) -> tuple[Path, float]:
    """Install the wheel with an extra from a package index; return the interpreter, and the size in MiB."""
    uv, python = Path(sys.executable).with_name("uv"), folder / "bin/python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    wanted = f"{wheel}[{extra}]" if extra else str(wheel)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, wanted], check=True)
    (site,) = (folder / "lib").glob("python3*/site-packages")
    return python, sum(file.stat().st_size for file in site.rglob("*") if file.is_file()) / MIB


def serves(python: Path, work: Path, *words: str, until: str, end: signal.Signals = signal.SIGTERM) -> int:
    """Start a service, wait for a line of its output, end it, and return its exit code."""
    service = subprocess.Popen(
        [python.with_name("gleaner"), *words],
        cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    with service:
        assert service.stdout is not None
        seen = []
        for line in service.stdout:
            seen.append(line)
            if until in line:
                break
        service.send_signal(end)
        rest, _ = service.communicate(timeout=DEADLINE_S)
    assert until in "".join(seen), seen[-20:]
    assert "Traceback" not in "".join(seen) + rest
    return service.returncode


@pytest.mark.wheel
@pytest.mark.timeout(INSTALL_S)
@pytest.mark.parametrize("extra", LARGE_MIB)
def test_a_large_extra_does_its_work(wheel, tmp_path, extra):
    """Installed into a new environment: a dataset is made and read, a service starts and stops."""
    python, size_mib = environment(wheel, extra, tmp_path / "venv")
    assert size_mib < LARGE_MIB[extra]
    if extra == "console":
        words = ("console", "--broker", "127.0.0.1:1", "--listen", f"127.0.0.1:{free_port()}")
        assert serves(python, tmp_path, *words, "--state-dir", "state", until="bus.disconnected") == 0
    elif extra == "modelserver":
        (tmp_path / "models").mkdir()
        words = ("modelserver", "--model_name=pets", f"--model_base_path={tmp_path}/models")
        waits = "modelserver.versions_missing"
        assert serves(python, tmp_path, *words, f"--port={free_port()}", until=waits) == 0
    elif extra == "demo":
        words = ("up", "site", "--host", "127.0.0.1", "--port", str(free_port()))
        assert serves(python, tmp_path, *words, until="release: ", end=signal.SIGINT) == 130
    else:
        for seed, name in enumerate(("cat", "dog")):
            (tmp_path / f"photos/{name}").mkdir(parents=True)
            (tmp_path / f"photos/{name}/1.jpg").write_bytes(jpeg(seed))
        for words, said in (
            (("import", "photos"), "2 photos stored"),
            (("list", "--classes"), "cat: 1\ndog: 1\n"),
        ):
            done = subprocess.run(
                [python.with_name("gleaner"), "cloud", *words],
                cwd=tmp_path, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert (done.returncode, said in done.stdout) == (0, True), done.stderr
    if "ray" in extra:
        subprocess.run([python, "-c", "import ray"], cwd=tmp_path, check=True)


@pytest.mark.wheel
@pytest.mark.timeout(INSTALL_S)
@pytest.mark.parametrize("extra", ARM)
def test_every_extra_resolves_for_arm(extra, tmp_path):
    """Each extra has wheels for 64-bit ARM, so that a Raspberry Pi compiles nothing."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent))
    done = subprocess.run(
        [
            str(uv), "pip", "compile", "--quiet", "--python-platform", "aarch64-manylinux_2_28",
            "--python-version", "3.11", "--only-binary", ":all:", "--extra", extra,
            "--output-file", str(tmp_path / "pins.txt"), str(ROOT / "pyproject.toml"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
