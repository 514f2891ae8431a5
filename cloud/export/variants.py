"""Write the variants of a version for LiteRT, and remove those that its gate refuses."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import structlog
from msgspec import structs
from numpy.typing import NDArray

from cloud.export.litert import convert_network, quantize_network, run_networks
from cloud.export.serving_module import Model, ServingModule
from cloud.export.v1_loader import SERVING_SIGNATURE
from cloud.modeling.arrays import softmax
from cloud.modeling.backbones import Backbone
from cloud.modeling.linear_head import match_temperature
from cloud.modeling.novelty import fit_novelty
from schemas.litert import (
    EXTRA_ASSETS,
    INT8,
    MANIFEST_FILE,
    Manifest,
    PixelFormat,
    Variant,
    encode_manifest,
    read_manifest,
)
from schemas.litert.network_input import network_input

RANGE_PHOTOS = 100
"""Photos that the ranges of the activations are measured on."""

CALIBRATION_PHOTOS = 256
"""Photos that temperature and novelty of a quantized network are fitted on, at most."""

INT8_FILES = ("network-int8.tflite", "head-int8.tflite")

_BATCH_PHOTOS = 32

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Quantization:
    """What the variant in 8-bit integers is made from.

    Attributes:
        photos: encoded training photos, in random order, at least one.
        network: the same network as an earlier version has it, used as it is; None to convert it.
    """

    photos: Sequence[bytes]
    network: bytes | None = None


def pixel_format(backbone: Backbone) -> PixelFormat:
    """Return how photos become the input of a backbone's network."""
    size = backbone.input_size_px
    return PixelFormat(size, size, backbone.offset, backbone.scale)


def quantized_variant(
    served: ServingModule, model: Model, folder: Path, quantization: Quantization
) -> list[Variant]:
    """Write the network in 8-bit integers, and a head in float32 that is fitted to its embeddings.

    Args:
        served: the graph of the model.
        model: the trained model.
        folder: `assets.extra` of the version.
        quantization: what it is made from.

    Returns:
        The variant; an empty list if an operation of the network has no form in 8-bit integers.
    """
    form, photos = pixel_format(model.backbone), quantization.photos
    try:
        network = quantization.network or quantize_network(
            served.parameters(),
            served.embed,
            model.network.input_shape[1:],
            [network_input(photo, form) for photo in photos[:RANGE_PHOTOS]],
        )
    except (RuntimeError, ValueError) as error:
        log.warning("training.not_quantized", backbone=model.backbone.name, reason=str(error))
        return []
    module = ServingModule(_fitted(model, network, photos[:CALIBRATION_PHOTOS]))
    head = convert_network(
        module.head_parameters(), module.judge, [model.backbone.embedding_dim], "embedding"
    )
    variant = Variant(INT8, INT8_FILES)
    for name, content in zip(variant.files, (network, head), strict=True):
        (folder / name).write_bytes(content)
    return [variant]


def _fitted(model: Model, network: bytes, photos: Sequence[bytes]) -> Model:
    """Return the model with bias, temperature and novelty for the embeddings of a quantized network.

    The labels cannot calibrate it: the head was trained on them. Its probabilities are brought close to those
    of the float32 network, whose temperature comes from held-out labels.

    Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction (2019).
    """
    exact, embeddings = (
        np.concatenate(parts) for parts in zip(*_embeddings(model, network, photos), strict=True)
    )
    targets = softmax(model.head.logits(exact) / model.temperature)
    # Rounding shifts the embeddings on average; the head's bias takes that back.
    shift = (embeddings - exact).mean(axis=0) @ model.head.kernel
    head = replace(model.head, bias=model.head.bias - shift)
    temperature = match_temperature(head.logits(embeddings), targets)
    return replace(model, head=head, temperature=temperature, novelty=fit_novelty(embeddings))


def _embeddings(
    model: Model, network: bytes, photos: Sequence[bytes]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield the embeddings of batches, by the trained network and by the quantized one."""
    form = pixel_format(model.backbone)
    for start in range(0, len(photos), _BATCH_PHOTOS):
        batch = photos[start : start + _BATCH_PHOTOS]
        images = np.concatenate([network_input(photo, form) for photo in batch])
        yield model.embed(images).numpy(), run_networks([network], images)["embedding"]


def write_manifest(directory: Path, backbone: Backbone, variants: Sequence[Variant]) -> None:
    """Write the manifest of a version."""
    manifest = Manifest(SERVING_SIGNATURE, tuple(variants), pixel_format(backbone))
    (directory / MANIFEST_FILE).write_bytes(encode_manifest(manifest))


def remove_variants(directory: Path, refused: Collection[str]) -> None:
    """Remove variants from a version: from the manifest, and files that no other variant needs.

    Args:
        directory: of the version; if all its variants are refused, its LiteRT part is removed.
        refused: names of the variants.
    """
    manifest = read_manifest(directory)
    if manifest is None or not refused:
        return
    kept = tuple(variant for variant in manifest.variants if variant.name not in refused)
    needed = {name for variant in kept for name in variant.files}
    for name in {name for variant in manifest.variants for name in variant.files} - needed:
        (directory / EXTRA_ASSETS / name).unlink()
    if kept:
        (directory / MANIFEST_FILE).write_bytes(encode_manifest(structs.replace(manifest, variants=kept)))
    else:
        (directory / MANIFEST_FILE).unlink()
