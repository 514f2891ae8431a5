"""Serve the LiteRT variant of a version, without TensorFlow: decode in Pillow, run the networks in LiteRT."""

import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from edge.modelserver.runtimes.base import Signature, no_saved_model, signature_of
from edge.modelserver.runtimes.decoding_memory import DecodingMemory, pillow_bytes
from edge.modelserver.runtimes.network import Network
from edge.modelserver.runtimes.variant import VariantOptions, choose_variant
from edge.modelserver.status import Code, ServingError
from edge.modelserver.tensors import Array
from edge.serving import messages_pb2 as messages
from schemas.errors import PermanentError
from schemas.image import ImageError, ImageFacts
from schemas.litert import EXTRA_ASSETS, MANIFEST_FILE, PIXELS_TENSOR, Manifest, PixelFormat, read_manifest
from schemas.litert.network_input import network_input

PACKAGE = "ai_edge_litert"
_SAVED_MODEL = "saved_model.pb"
_SERVE_TAG = "serve"

log = structlog.get_logger()


def is_installed() -> bool:
    """Return True if LiteRT can be used without TensorFlow."""
    return importlib.util.find_spec(PACKAGE) is not None


def has_variants(path: Path) -> bool:
    """Return True if the version in a directory has a LiteRT part."""
    return (path / MANIFEST_FILE).is_file()


@dataclass(frozen=True, slots=True)
class LiteRTRuntime:
    """Loads the fastest LiteRT variant of a version.

    Args:
        threads: photos at a time; 0 for the number of CPUs.
        options: which variant, and where its choice is cached.
        memory: for decoding.
    """

    threads: int = 0
    options: VariantOptions = field(default_factory=VariantOptions)
    memory: DecodingMemory | None = None

    def load(self, path: Path) -> "NetworkProgram":
        """Load the version in a directory.

        Raises:
            ServingError: NOT_FOUND without a SavedModel, FAILED_PRECONDITION without a LiteRT part,
                INVALID_ARGUMENT if a part is invalid.
        """
        definitions = _read_signatures(path)
        manifest = _read_manifest(path)
        definition = definitions.get(manifest.signature)
        if definition is None or len(definition.inputs) != 1:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"{MANIFEST_FILE}: no signature {manifest.signature} with one input"
            )
        variant = choose_variant(path, manifest, self.options)
        form = manifest.pixels
        (alias,) = definition.inputs
        network = Network(
            [path / EXTRA_ASSETS / file for file in variant.files],
            self.threads,
            prepare=partial(_decode, form, self.memory) if form else None,
            input_name=PIXELS_TENSOR if form else alias,
        )
        missing = sorted(definition.outputs.keys() - network.empty.keys())
        if missing:
            network.close()
            raise ServingError(Code.INVALID_ARGUMENT, f"variant {variant.name}: no output {missing[0]}")
        log.info("modelserver.variant", path=str(path), variant=variant.name)
        return NetworkProgram(manifest.signature, definition, network, variant.name, photos=form is not None)


class NetworkProgram:
    """A signature that a LiteRT network answers; thread-safe.

    Args:
        name: of the signature.
        definition: the signature, as in the SavedModel.
        network: computes its outputs.
        variant: its name.
        photos: whether its input is encoded photos.
    """

    def __init__(
        self,
        name: str,
        definition: messages.SignatureDef,
        network: Network,
        variant: str,
        *,
        photos: bool,
    ) -> None:
        # Other signatures are not listed: without the graph nothing answers them.
        self.signature_defs = {name: definition}
        self._signature: Signature = signature_of(definition)
        self.variant = variant
        self._network = network
        self._photos = photos

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_s: float | None) -> list[Array]:
        """Decode and run photos, or run other inputs; as `Program.run` describes."""
        (values,) = feeds.values()
        if values.ndim == 0 or (self._photos and values.ndim != 1):
            raise ServingError(Code.INVALID_ARGUMENT, f"expected a batch, got shape {list(values.shape)}")
        # Photos differ in size and run one by one; other inputs are the network's input as they are.
        items = list(values) if self._photos else [values]
        outputs = self._network.run(items, timeout_s) if len(values) else self._network.empty
        aliases = {tensor: alias for alias, tensor in self._signature.outputs.items()}
        return [outputs[aliases[name]] for name in fetches]

    def close(self) -> None:
        """Free the network. Call only if no `run` is in progress."""
        self._network.close()


def _decode(
    form: PixelFormat, memory: DecodingMemory | None, encoded: bytes, deadline_s: float | None
) -> Array:
    def held(facts: ImageFacts) -> AbstractContextManager[None]:
        return memory.taken(pillow_bytes(facts), deadline_s) if memory else nullcontext()

    try:
        return network_input(encoded, form, held)
    except ImageError as error:
        # TensorFlow's words first: clients of tensorflow_model_server may look for them.
        prefix = "Unknown image file format. One of JPEG, PNG required: "
        message = f"{prefix if error.code == 'unsupported-image' else ''}{error}"
        raise ServingError(Code.INVALID_ARGUMENT, message) from error


def _read_signatures(path: Path) -> Mapping[str, messages.SignatureDef]:
    try:
        saved = messages.SavedModel.FromString((path / _SAVED_MODEL).read_bytes())
    except (OSError, DecodeError) as error:
        raise no_saved_model(path) from error
    for meta_graph in saved.meta_graphs:
        if _SERVE_TAG in meta_graph.meta_info_def.tags:
            # Copies: a message of the map would keep the whole graph in memory.
            return {
                name: messages.SignatureDef.FromString(definition.SerializeToString())
                for name, definition in meta_graph.signature_def.items()
            }
    raise ServingError(Code.NOT_FOUND, f"no MetaGraphDef in {path} has the tag {_SERVE_TAG}")


def _read_manifest(path: Path) -> Manifest:
    try:
        manifest = read_manifest(path)
    except (PermanentError, OSError) as error:
        raise ServingError(Code.INVALID_ARGUMENT, str(error)) from error
    if manifest is None:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            f"{path} has no LiteRT variant ({MANIFEST_FILE}): train the version again, or serve its graph "
            "with --runtime tensorflow",
        )
    return manifest
