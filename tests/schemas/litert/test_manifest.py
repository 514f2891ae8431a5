"""The manifest of the LiteRT part: what is read, and what is refused."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import PermanentError
from schemas.litert import MANIFEST_FILE, Manifest, PixelFormat, Variant, encode_manifest, read_manifest

NAMES = st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,63}\Z")
VARIANTS = st.lists(
    st.builds(Variant, NAMES, st.lists(NAMES, min_size=1, max_size=8).map(tuple)), min_size=1, max_size=4
)
SIZES = st.integers(1, 4096)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
ABOVE_0 = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


def written(folder: Path, content: bytes) -> Path:
    file = folder / MANIFEST_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return folder


@given(st.text(), VARIANTS.map(tuple), st.none() | st.builds(PixelFormat, SIZES, SIZES, NUMBERS, ABOVE_0))
def test_a_manifest_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    signature: str,
    variants: tuple[Variant, ...],
    pixels: PixelFormat | None,
) -> None:
    """Encoding and reading a manifest gives the same manifest."""
    manifest = Manifest(signature, variants, pixels)
    folder = written(tmp_path_factory.mktemp("version"), encode_manifest(manifest))
    assert read_manifest(folder) == manifest


def test_a_version_without_the_file_has_no_litert_part(tmp_path: Path) -> None:
    """A version of before, or of another trainer, has no manifest."""
    assert read_manifest(tmp_path) is None


GOOD = {"signature": "s", "variants": [{"name": "float32", "files": ["network.tflite"]}]}


@pytest.mark.parametrize(
    "change",
    [
        {"variants": []},
        {"variants": [{"name": "int8", "files": []}]},
        {"variants": [{"name": "int8", "files": ["../network.tflite"]}]},
        {"variants": [{"name": "int8", "files": ["/etc/passwd"]}]},
        {"variants": [{"name": "int8", "files": [".."]}]},
        {"variants": "int8"},
        {"pixels": {"width": 0, "height": 1, "offset": 0, "scale": 1}},
        {"pixels": {"width": 1, "height": 1, "offset": 0, "scale": 0}},
        {"variants": [{"name": "int8", "files": ["network.tflite\n"]}]},
        {"pixels": {"width": 10**9, "height": 1, "offset": 0, "scale": 1}},
        {"format": "1"},
    ],
)
def test_an_invalid_manifest_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    """Values out of range, and files outside of the version, are refused with the path of the manifest."""
    folder = written(tmp_path, msgspec.json.encode({**GOOD, **change}))
    with pytest.raises(PermanentError, match=r"no valid LiteRT manifest in .*litert\.json"):
        read_manifest(folder)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Reading a file with any content gives a manifest or one error."""
    folder = written(tmp_path_factory.mktemp("version"), content)
    try:
        assert read_manifest(folder) is not None
    except PermanentError as error:
        assert "litert.json" in str(error)  # noqa: PT017 - some bytes are valid


def test_fields_of_later_versions_are_ignored_and_a_later_format_is_not(tmp_path: Path) -> None:
    """New fields do not stop an old reader; a new format number does, since it would misread the rest."""
    assert read_manifest(written(tmp_path, msgspec.json.encode({**GOOD, "later": 1}))) is not None
    with pytest.raises(PermanentError, match="has format 2, and this version reads formats up to 1"):
        read_manifest(written(tmp_path, msgspec.json.encode({**GOOD, "format": 2})))
