from itertools import pairwise
from pathlib import Path

import pytest

from deploy.images.engines import Build, Engine, build_command, find_engine, import_commands, save_command

BUILD = Build(
    "gleaner", "localhost/gleaner-edge:1", "arm64", "base", 1_700_000_000, {"SIDE": "edge"}, Path("/ca.pem")
)


def pairs(command: list[str]) -> set[tuple[str, str]]:
    """Return each word with its successor."""
    return set(pairwise(command))


@pytest.mark.parametrize("engine", Engine)
def test_every_engine_builds_the_same_dockerfile(engine):
    """Dockerfile, target, platform, arguments and authorities are the same for each engine."""
    assert {
        ("--file", "deploy/images/Dockerfile"),
        ("--target", "gleaner"),
        ("--platform", "linux/arm64"),
        ("--build-arg", "BASE=base"),
        ("--build-arg", "SIDE=edge"),
        ("--build-arg", "SOURCE_DATE_EPOCH=1700000000"),
        ("--secret", "id=ca,src=/ca.pem"),
    } <= pairs(build_command(engine, BUILD))


@pytest.mark.parametrize("engine", [Engine.PODMAN, Engine.BUILDAH])
def test_files_get_the_time_of_the_commit(engine):
    """The time of files and image is an input, not the clock's."""
    assert {("--timestamp", "1700000000"), ("--tag", BUILD.tag)} <= pairs(build_command(engine, BUILD))


def test_docker_rewrites_times():
    """BuildKit takes the time from SOURCE_DATE_EPOCH and applies it to files too."""
    (output,) = (after for word, after in pairs(build_command(Engine.DOCKER, BUILD)) if word == "--output")
    assert output == f"type=docker,name={BUILD.tag},rewrite-timestamp=true"


@pytest.mark.parametrize("engine", Engine)
def test_a_fresh_build_uses_no_cache(engine):
    """Fixes of Debian's packages arrive by a build without earlier layers."""
    assert "--no-cache" in build_command(engine, BUILD, fresh=True)
    assert "--no-cache" not in build_command(engine, BUILD)


@pytest.mark.parametrize("engine", Engine)
def test_a_base_is_made_of_an_archive(engine):
    """Each engine gets the archive and the name."""
    words = [word for command in import_commands(engine, Path("/base.tar"), "base:1") for word in command]
    assert {"/base.tar", "base:1"} <= set(words)


@pytest.mark.parametrize("engine", Engine)
def test_an_image_is_saved_with_its_name(engine):
    """The archive is one that `docker load` and `ctr images import` read."""
    words = " ".join(save_command(engine, "name:1", Path("/out.tar")))
    assert "name:1" in words
    assert "/out.tar" in words


def test_without_an_engine_the_error_says_what_to_install(monkeypatch, tmp_path):
    """A machine that cannot build images gets a sentence."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="apt-get install buildah mmdebstrap"):
        find_engine()
