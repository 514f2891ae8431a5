"""Build images and print their sizes: `python -m deploy.images [IMAGE ...]`, which `make images` runs."""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from deploy.images.base import find_base
from deploy.images.catalog import ARCHITECTURES, Image, chosen, native
from deploy.images.checkout import ROOT, Source, authorities, read_source
from deploy.images.engines import Build, Engine, build_command, find_engine, save_command
from deploy.images.store import Stored, look_up

_BUILD_S = 4 * 3600.0


class Built(NamedTuple):
    """An image that is in the engine's store."""

    tag: str
    max_mb: int
    stored: Stored
    wall_s: float


def main() -> int:
    """Build the images that the command line names."""
    options = _parser().parse_args()
    try:
        images = chosen(options.images)
        engine = find_engine(options.engine)
        base = find_base(engine, options.base, options.arch or native())
        source = read_source()
        built = [_build(engine, image, base, source, options) for image in images]
    except (ValueError, RuntimeError) as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    except subprocess.SubprocessError as error:
        print(f"images: {_reason(error)}", file=sys.stderr)
        return 1
    print(table(built))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.images", description="Build the images of Gleaner."
    )
    parser.add_argument("images", nargs="*", help="names such as edge; all of them if none is given")
    parser.add_argument(
        "--arch", choices=ARCHITECTURES, default=None, help="architecture (default: this machine's)"
    )
    parser.add_argument("--engine", choices=list(Engine), help="default: the first of them that answers")
    parser.add_argument(
        "--base", help="image to start from; default: Debian's, or one made here with mmdebstrap"
    )
    parser.add_argument("--version", help="tag (default: the project's version)")
    parser.add_argument(
        "--fresh", action="store_true", help="use no layer of an earlier build: Debian's latest fixes"
    )
    parser.add_argument("--archives", type=Path, metavar="DIR", help="also write each image to DIR/NAME.tar")
    return parser


def _build(engine: Engine, image: Image, base: str, source: Source, options: argparse.Namespace) -> Built:
    """Build one image, and write its archive if that is wanted."""
    arch = options.arch or native()
    version = options.version or source.version
    tag = image.tag(version, arch)
    started = time.monotonic()
    print(f"{tag}: building with {engine}", flush=True)
    build = Build(
        target=image.target,
        tag=tag,
        arch=arch,
        base=base,
        epoch_s=source.epoch_s,
        arguments={"SIDE": image.side, "VERSION": version, "REVISION": source.revision, "SOURCE": source.url},
        authorities=authorities(),
    )
    subprocess.run(build_command(engine, build, fresh=options.fresh), cwd=ROOT, timeout=_BUILD_S, check=True)  # noqa: S603
    if options.archives:
        _save(engine, tag, options.archives / f"{image.side}{'' if arch == native() else f'-{arch}'}.tar")
    return Built(tag, image.max_mb, look_up(engine, tag), time.monotonic() - started)


def _save(engine: Engine, tag: str, archive: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.unlink(missing_ok=True)  # skopeo's part of buildah refuses to change an archive
    subprocess.run(save_command(engine, tag, archive), cwd=ROOT, timeout=_BUILD_S, check=True)  # noqa: S603


def table(built: list[Built]) -> str:
    """Return a line for each image: size, goal, id, and the seconds that it took."""
    rows = [f"{'image':40} {'MB':>6} {'goal':>6}  {'id':12} {'s':>6}"]
    for one in built:
        mark = "" if one.stored.size_mb <= one.max_mb else "  larger than its goal"
        short = one.stored.image_id[:12]
        rows.append(f"{one.tag:40} {one.stored.size_mb:6.0f} {one.max_mb:6}  {short} {one.wall_s:6.0f}{mark}")
    return "\n".join(rows)


def _reason(error: subprocess.SubprocessError) -> str:
    """Return what failed without the whole command line."""
    if isinstance(error, subprocess.CalledProcessError):
        return f"{error.cmd[0]} {error.cmd[1]} failed with exit code {error.returncode}; its output is above"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
