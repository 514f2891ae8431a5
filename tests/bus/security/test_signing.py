import msgspec
import pytest

from bus.config import ConfigError
from bus.security.certificates import new_key
from bus.security.signing import (
    SIGNED,
    SIGNED_LATER,
    new_signing_key,
    read_release_keys,
    read_signing_key,
    release_key,
    sign,
    signature_error,
    signed_bytes,
)
from schemas.messages import Release

RELEASE = Release(
    node="edge-1",
    model="pets",
    version=7,
    url="https://models.example/7.tar",
    sha256="0" * 64,
    size_bytes=1000,
    classes=["cat", "dög"],
    metrics={"gold_accuracy": 0.9},
    released_at_ms=1000,
)
OTHER = {
    "node": "edge-2",
    "model": "pests",
    "version": 6,
    "url": "file:///etc/shadow",
    "sha256": "1" * 64,
    "size_bytes": 1001,
    "classes": ["dög", "cat"],
    "released_at_ms": 1001,
    "stage": "canary",
    "share": 0.5,
    "baseline": 6,
}


@pytest.fixture
def keys(tmp_path):
    """A private and a public key, read from files."""
    private, public = tmp_path / "signing.key", tmp_path / "release.pem"
    private.write_bytes(new_signing_key())
    public.write_bytes(release_key(read_signing_key(private)))
    return read_signing_key(private), read_release_keys(public)[0].key


def test_g6_a_signature_is_valid_after_encoding(keys):
    """G6: a signed release is valid after it was encoded and decoded; an unsigned one is not."""
    signing, verifying = keys
    signed = msgspec.json.decode(msgspec.json.encode(sign(RELEASE, signing)), type=Release)
    assert signature_error(signed, verifying) is None
    assert signature_error(RELEASE, verifying) == "the release is not signed"


@pytest.mark.parametrize("field", SIGNED + SIGNED_LATER)
def test_g6_a_changed_field_invalidates_the_signature(keys, field):
    """G6: changing any field that a node acts on makes the signature invalid."""
    signing, verifying = keys
    altered = msgspec.structs.replace(sign(RELEASE, signing), **{field: OTHER[field]})
    assert "does not belong" in (signature_error(altered, verifying) or "")


def test_g6_every_field_is_signed_or_excluded_explicitly():
    """G6: a new field of Release must be added to the signed fields or to the exceptions here."""
    assert {*SIGNED, *SIGNED_LATER, "metrics", "temperature", "parts", "groups", "signature"} == set(
        Release.__struct_fields__
    )


def test_lists_of_parts_leave_the_signed_bytes_as_they_were():
    """A node that does not know the field accepts the release, and fetches the bundle as a whole."""
    assert signed_bytes(msgspec.structs.replace(RELEASE, parts="a" * 64)) == signed_bytes(RELEASE)


def test_g6_an_invalid_signature_is_an_error(keys):
    """G6: a signature of another key or of other bytes, or any other text, is invalid, and nothing raises."""
    signing, verifying = keys
    good = sign(RELEASE, signing).signature or ""
    for bad in ("", "00", "no hex", good[:-2], good + "00", "ff" * 64, good[::-1], "é" * 128):
        assert signature_error(msgspec.structs.replace(RELEASE, signature=bad), verifying), bad
    stranger = msgspec.structs.replace(RELEASE, signature=signing.sign(b"gleaner").hex())
    assert signature_error(stranger, verifying)


def test_the_signed_bytes_are_ascii_json():
    """The signed bytes are ASCII JSON without spaces, with the purpose first."""
    assert signed_bytes(RELEASE) == (
        b'["gleaner/v1/release","edge-1","pets",7,"https://models.example/7.tar",'
        b'"' + b"0" * 64 + b'",1000,["cat","d\\u00f6g"],1000]'
    )


def test_fields_added_later_are_signed_under_their_wire_names():
    """A stage, a share and a baseline are appended as pairs of wire name and value, defaults left out."""
    release = msgspec.structs.replace(RELEASE, stage="canary", share=0.5, baseline=6)
    assert signed_bytes(release) == (
        signed_bytes(RELEASE).removesuffix(b"]") + b',["stage","canary"],["share",0.5],["beside",6]]'
    )


@pytest.mark.parametrize("read", [read_signing_key, read_release_keys])
def test_an_unusable_key_is_an_error(tmp_path, read):
    """A missing or invalid key, or one of another kind, raises ConfigError with its path."""
    for content in (None, b"", b"rubbish", new_key()):
        path = tmp_path / "a.key"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"a\.key.*Ed25519"):
            read(path)
