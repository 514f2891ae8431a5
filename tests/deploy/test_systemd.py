import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import parser_of
from tests.conftest import ROOT

UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
PROGRAM = "/opt/gleaner/bin/gleaner"
MAX_EXPOSURE = 2.0  # of 10; systemd calls up to 2 "OK"
ANALYZE_S = 60

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze, of Debian's package systemd"
)


def unit(path: Path) -> configparser.ConfigParser:
    """Return the sections of a unit; of repeated settings the last value."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    parsed = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parsed.optionxform = str
    parsed.read_string(text)
    return parsed


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, timeout=ANALYZE_S, check=False
    )


@needs_analyze
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_accepts_the_unit(path, tmp_path):
    """`systemd-analyze verify` finds no unknown setting and no bad value."""
    copy = tmp_path / path.name
    copy.write_text(path.read_text().replace(PROGRAM, sys.executable))
    done = analyze("verify", "--man=no", str(copy))
    assert [line for line in done.stderr.splitlines() if path.stem in line] == []
    assert done.returncode == 0, done.stderr


@needs_analyze
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_the_unit_is_hardened(path, record_property):
    """`systemd-analyze security` puts the exposure at 2 of 10 or less."""
    done = analyze("security", "--offline=true", "--no-pager", str(path))
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    if found is None:
        pytest.skip(f"this systemd-analyze reads no unit files: {done.stderr.strip()}")
    record_property("exposure", float(found[1]))
    assert float(found[1]) <= MAX_EXPOSURE


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_the_command_of_the_unit_exists(path):
    """`gleaner` accepts the words of ExecStart."""
    program, *words = shlex.split(unit(path)["Service"]["ExecStart"])
    assert program == PROGRAM
    if words[0] != "modelserver":  # has TensorFlow Serving's own flags
        parser, _ = parser_of(words[0])
        parser.parse_args(words[1:])
    else:
        from edge.modelserver import flags  # noqa: PLC0415 - for one unit

        assert flags.parse(words[1:]).port == 8500


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_the_unit_uses_what_the_service_reports(path):
    """The service reports readiness and progress, so the unit has to ask for both."""
    service = unit(path)["Service"]
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) > 0
    assert service["Restart"] == "always"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_each_file_of_the_configuration_is_handed_over(path):
    """A credential for each file that `gleaner provision` writes for the service, under the same name."""
    text = path.read_text()
    handed = re.findall(r"^LoadCredential=(\S+):/etc/gleaner/(\S+)$", text, re.MULTILINE)
    assert [one for one in handed if one[0] != one[1]] == []
    side = re.search(r"--config /etc/gleaner/(\w+)\.toml", text)
    if side is not None:
        wanted = {f"{side[1]}.toml", "ca.pem", f"{side[1]}.pem", f"{side[1]}.key"}
        assert wanted <= {name for name, _ in handed}
