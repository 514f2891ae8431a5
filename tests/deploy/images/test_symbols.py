import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgpack
import pytest

from deploy.images.symbols import cut, main

LIBRARY = next(Path(msgpack.__file__).parent.glob("_cmsgpack*.so"))
LOAD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("msgpack._cmsgpack", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
assert module.Packer().pack([1, "two"]) == b"\\x92\\x01\\xa3two"
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A copy of a real extension module."""
    return Path(shutil.copy(LIBRARY, tmp_path / "pack.so"))


def test_a_library_works_without_its_symbols(library, tmp_path, capsys):
    """What is loaded stays as it was: a new process imports the library and calls it."""
    before = library.read_bytes()
    main(tmp_path)
    after = library.read_bytes()
    assert len(after) < len(before)
    assert after[64:] == before[64 : len(after)]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(library)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "MB of symbols cut off" in capsys.readouterr().out


def test_nothing_is_cut_twice(library):
    """A second run changes nothing, so that the layers of an image do not depend on how often it ran."""
    assert cut(library) > 0
    once = library.read_bytes()
    assert cut(library) == 0
    assert library.read_bytes() == once


@pytest.mark.parametrize("kept", [0, 10, 64, 200, 20_000])
def test_an_incomplete_library_is_left_alone(library, kept):
    """A file that ends before its sections is damaged or of a kind that is not known."""
    os.truncate(library, kept)
    assert cut(library) == 0
    assert library.stat().st_size == kept


@pytest.mark.parametrize(
    "content", [b"", b"import os\n", b"\x7fELF\x01\x01" + bytes(100), b"\x7fELF\x02\x02" + bytes(100)]
)
def test_other_files_are_left_alone(tmp_path, content):
    """Only libraries of 64 bits and little-endian order are cut."""
    (tmp_path / "file").write_bytes(content)
    assert cut(tmp_path / "file") == 0
    assert (tmp_path / "file").read_bytes() == content


def test_programs_at_a_fixed_address_and_object_files_are_left_alone(library):
    """An object file is for linkers: it is nothing without its sections."""
    content = bytearray(library.read_bytes())
    for kind in (1, 2, 4):
        content[16] = kind
        library.write_bytes(content)
        assert cut(library) == 0
        assert library.read_bytes() == content
