"""What is known of a foreign model before it is loaded, and its parts afterwards."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from cloud.modeling.adopted.class_scores import Scores
from cloud.modeling.adopted.network import AdoptedNetwork, Input, Reference, complete
from cloud.modeling.adopted.preprocessing import AdoptionError, Preprocessing, first_line
from cloud.modeling.backbones.base import Backbone, preprocess
from cloud.modeling.linear_head import Head

_MAX_STEM = 40
_DAMAGED = "save or copy the model again, with all its files; if it is whole, export it as a SavedModel"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model file, and what the user stated about it.

    Attributes:
        path: of the file, or of the folder of a SavedModel.
        classes: names in the order of the scores.
        preprocessing: None if the model takes encoded photos or 8-bit pixels.
        output: name of the output with the scores; None if only one can have them.
        scores: what they are; None to infer it from their values.
        samples: encoded ordinary photos that the model is tried on, at least one.
    """

    path: Path
    classes: tuple[str, ...]
    samples: Sequence[bytes]
    preprocessing: Preprocessing | None = None
    output: str | None = None
    scores: Scores | None = None

    def identity(self) -> bytes:
        """Return the digest of the model's files and of the user's statements, 16 bytes."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((self.classes, self.preprocessing, self.output, self.scores)).encode())
        files = [self.path] if self.path.is_file() else sorted(self.path.rglob("*"))
        for file in files:
            if file.is_file():
                digest.update(f"\n{file.relative_to(self.path.parent)} {file.stat().st_size}\n".encode())
                with file.open("rb") as content:
                    digest.update(hashlib.file_digest(content, "blake2b").digest())
        return digest.digest()


@dataclass(frozen=True, slots=True)
class ForeignModel:
    """A foreign model in the parts of our own.

    Attributes:
        backbone: name and input size; its pixels are not normalised, as the network does that.
        network: pixels in 0 to 255 to the embedding; a Keras model, or an `AdoptedNetwork`.
        head: embedding to logits; the identity where the embedding is the logits.
        kind: what it was, for messages.
    """

    backbone: Backbone
    network: Any
    head: Head
    kind: str


def plan(name: str, side_px: int, dim: int, network: Any) -> Backbone:
    """Return the backbone of a foreign network, which takes pixels in 0 to 255 and is frozen."""
    return Backbone(name, side_px, 0.0, 1.0, dim, pretrained=True, build=lambda: network)


def file_name(path: Path, identity: bytes) -> str:
    """Return the name of a foreign backbone, as in cards and names of cache files: stem and digest."""
    stem = re.sub(r"[^a-z0-9]+", "-", path.resolve().stem.lower()).strip("-")[:_MAX_STEM] or "model"
    return f"{stem}-{identity.hex()[:8]}"


def wrapped(
    source: ModelSource,
    call: Any,
    inputs: Input,
    resources: Sequence[Any],
    kind: str,
    *,
    reference: Reference | None = None,
) -> ForeignModel:
    """Return a foreign function as a network whose embedding is its logits.

    Args:
        source: the file, and what the user stated about it.
        call: from the foreign input to the scores `[N, W]`.
        inputs: the foreign input.
        resources: what `call` uses.
        kind: of the model, for messages.
        reference: what a translated model is compared with on the samples.

    Raises:
        AdoptionError: its input or output cannot be used.
    """
    identity, classes = source.identity(), len(source.classes)

    def samples(side: int) -> tf.Tensor:
        return preprocess(plan("samples", side, classes, None), tf.constant(list(source.samples)))

    network = AdoptedNetwork(
        call,
        inputs,
        complete(inputs, source.preprocessing),
        resources=resources,
        identity=identity,
        scores=source.scores,
        samples=samples,
        classes=classes,
        reference=reference,
    )
    backbone = plan(file_name(source.path, identity), network.input_shape[1], classes, network)
    return ForeignModel(backbone, network, Head.identity(classes), kind)


def cannot_load(path: Path, error: BaseException, hint: str | None = None) -> AdoptionError:
    """Return the error for a file that its library refuses."""
    return AdoptionError(f"cannot load {path}: {first_line(error)}", hint=hint or _DAMAGED)
