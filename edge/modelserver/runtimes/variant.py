"""Choose the variant of a version that this processor runs fastest.

8-bit integers gain on processors with instructions for them (VNNI, dot products) and nothing on others. So
the variants are measured once, on photos of the warm-up records; the choice is cached by model and processor.
"""

import hashlib
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import structlog

from bus.files.atomic_file import write_atomic
from bus.files.cache_folder import default_cache
from edge.modelserver.models.warmup_records import RECORDS_FILE, warmup_photos
from edge.modelserver.runtimes.network import Network
from edge.modelserver.status import Code, ServingError
from edge.modelserver.tensors import Array
from schemas.errors import DECODE_ERRORS
from schemas.image import ImageError
from schemas.litert import EXTRA_ASSETS, PIXELS_TENSOR, Manifest, PixelFormat, Variant
from schemas.litert.network_input import network_input

AUTO = "auto"
GAIN = 0.9
"""A later variant is chosen only if it takes less than this share of the time of the first one."""

_TIMED_RUNS = 9
_PHOTOS = 3
_MAX_CACHED = 64

log = structlog.get_logger()


def cache_file() -> Path:
    """Return the file in which choices are cached by default."""
    return default_cache() / "litert-variants.json"


@dataclass(frozen=True, slots=True)
class VariantOptions:
    """How a variant is chosen.

    Args:
        name: of the variant to use, where a version has it; `auto` for the fastest.
        cache: JSON file of earlier choices.
    """

    name: str = AUTO
    cache: Path = field(default_factory=cache_file)


def choose_variant(path: Path, manifest: Manifest, options: VariantOptions) -> Variant:
    """Return the variant to serve.

    Args:
        path: directory of the version.
        manifest: its LiteRT part.
        options: how to choose.

    Raises:
        ServingError: a variant cannot be run.
    """
    by_name = {variant.name: variant for variant in manifest.variants}
    if options.name != AUTO:
        if options.name not in by_name:  # its variant gate refused it: serving must not stop
            log.warning("modelserver.variant_missing", path=str(path), wanted=options.name, there=[*by_name])
        return by_name.get(options.name, manifest.variants[0])
    if len(by_name) == 1 or manifest.pixels is None:
        return manifest.variants[0]
    key = _key(path, manifest)
    cached = _read_cache(options.cache)
    if cached.get(key) in by_name:
        return by_name[cached[key]]
    times_ms = _measure(path, manifest.variants, manifest.pixels)
    chosen = fastest(times_ms)
    log.info("modelserver.variants_measured", path=str(path), chosen=chosen, milliseconds=times_ms)
    _write_cache(options.cache, {**cached, key: chosen})
    return by_name[chosen]


def fastest(times_ms: Mapping[str, float]) -> str:
    """Return the name of the variant to use.

    Args:
        times_ms: time per photo by variant, in order of preference; the first is the most accurate.
    """
    first, *others = times_ms
    best = min(others, key=times_ms.__getitem__, default=first)
    return best if times_ms[best] < GAIN * times_ms[first] else first


def _measure(path: Path, variants: Sequence[Variant], form: PixelFormat) -> dict[str, float]:
    """Return the median time per photo of each variant, in milliseconds."""
    images = _images(path, form)
    networks: dict[str, Network] = {}
    try:
        for variant in variants:
            files = [path / EXTRA_ASSETS / file for file in variant.files]
            networks[variant.name] = Network(files, 1, input_name=PIXELS_TENSOR)
        times: dict[str, list[float]] = {name: [] for name in networks}
        # In turns: another load on the machine affects all variants. The first round only warms up.
        for _ in range(1 + _TIMED_RUNS):
            for name, network in networks.items():
                began_s = time.perf_counter()
                network.run(images, None)
                times[name].append(1000 * (time.perf_counter() - began_s) / len(images))
    finally:
        for network in networks.values():
            network.close()
    return {name: round(statistics.median(taken[1:]), 3) for name, taken in times.items()}


def _images(path: Path, form: PixelFormat) -> list[Array]:
    photos = warmup_photos(path, _PHOTOS)
    if not photos:  # grey: the time of most networks does not depend on the values
        return [np.zeros((1, form.height, form.width, 3), np.float32)]
    try:
        return [network_input(photo, form) for photo in photos]
    except ImageError as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"{RECORDS_FILE}: {error}") from error


def _key(path: Path, manifest: Manifest) -> str:
    """Return the digest of the variants' files, of the processor and of LiteRT."""
    digest = hashlib.blake2b(digest_size=16)
    for variant in manifest.variants:
        digest.update(f"{variant.name}\n".encode())
        for name in variant.files:
            try:
                with (path / EXTRA_ASSETS / name).open("rb") as file:
                    digest.update(hashlib.file_digest(file, "blake2b").digest())
            except OSError as error:
                raise ServingError(
                    Code.INVALID_ARGUMENT, f"{name}: cannot be read: {error.strerror}"
                ) from error
    digest.update(f"{processor()}\n{version('ai-edge-litert')}".encode())
    return digest.hexdigest()


def processor() -> str:
    """Return the processor and its instruction sets from /proc/cpuinfo; empty if unknown."""
    names = ("model name", "flags", "Features", "CPU implementer", "CPU part", "CPU variant")
    try:
        first, _, _ = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")
    except OSError:
        return ""
    return "\n".join(line for line in first.splitlines() if line.partition("\t")[0].strip() in names)


def _read_cache(file: Path) -> dict[str, str]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, *DECODE_ERRORS):
        return {}  # missing or damaged: measure again
    return {str(key): str(name) for key, name in content.items()} if isinstance(content, dict) else {}


def _write_cache(file: Path, choices: Mapping[str, str]) -> None:
    newest = dict(list(choices.items())[-_MAX_CACHED:])
    try:
        write_atomic(file, json.dumps(newest, indent=1).encode())
    except OSError as error:  # a read-only root file system: measured again at the next start
        log.warning("modelserver.variant_not_cached", path=str(file), reason=error.strerror or str(error))
