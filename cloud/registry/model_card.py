"""The model card: what a version was made of and how good it is."""

from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from cloud.evaluation.metrics import Metrics
from cloud.evaluation.promotion_gate import Verdict
from cloud.evaluation.variant_gate import VariantVerdict
from schemas.errors import DECODE_ERRORS, PermanentError


class Calibration(msgspec.Struct, frozen=True):
    """Expected calibration error before and after temperature scaling, each in [0, 1].

    Attributes:
        held_out_before: on held-out labels; None if there were too few.
        held_out_after: on the same labels, which the temperature was fitted on.
        gold_before: on the gold set; None without gold photos.
        gold_after: on the gold set.
    """

    held_out_before: float | None = None
    held_out_after: float | None = None
    gold_before: float | None = None
    gold_after: float | None = None


class Candidate(msgspec.Struct, frozen=True):
    """A candidate of a training.

    Attributes:
        name: "human" (human labels alone), "human+teacher" (with the teacher's labels outside of the lane
            auto) or "human+harvested" (with the lane auto too).
        photos: number of photos that it was trained on.
        held_out_photos: number of human labels in its cross-validation.
        held_out_loss: mean negative log-likelihood on them, calibrated; the lowest is chosen. None without
            held-out labels.
        held_out_accuracy: accuracy on them, or None.
        gold_accuracy: on the gold set; reported, never used to choose. None without gold photos.
    """

    name: str
    photos: int
    held_out_photos: int
    held_out_loss: float | None
    held_out_accuracy: float | None
    gold_accuracy: float | None


class GroupOutcome(msgspec.Struct, frozen=True):
    """What a training found out about a group of devices.

    Attributes:
        name: of the group.
        labels: human labels of its photos that were held out.
        served: whether the bundle has a head for the group.
        source: whose head is the best: "own", or the name of another group; empty if none was tried.
        reason: why the shared head answers; empty if the group has a head.
        loss: of the shared head on the held-out labels, None without any.
        group_loss: of the best head on them, fitted without them; None if none was tried.
        accuracy: of the shared head on them.
        group_accuracy: of the best head.
        gold_photos: of the group.
        gold_accuracy: of the shared head on them, None without any.
        group_gold_accuracy: of the best head on them, None if it was not measured.
    """

    name: str
    labels: int
    served: bool
    source: str
    reason: str
    loss: float | None = None
    group_loss: float | None = None
    accuracy: float | None = None
    group_accuracy: float | None = None
    gold_photos: int = 0
    gold_accuracy: float | None = None
    group_gold_accuracy: float | None = None


# Unknown fields are ignored and new ones have defaults: cards of earlier versions stay readable.
class Card(msgspec.Struct, frozen=True):
    """Description of a version, inside its SavedModel and its bundle.

    Attributes:
        version: its number.
        parent: the champion when it was trained, which it would replace; None for the first version.
        dataset_version: version of the dataset table that it was trained from.
        backbone: name of the backbone.
        weights_digest: 128-bit BLAKE2b of the backbone's weights.
        classes: names in the order of the outputs.
        signature: the serving signature, name to type and shape.
        temperature: divisor of the logits, inside the graph.
        examples: by class and label source, the number of photos given to the training.
        examples_used: the same for the photos of the chosen candidate.
        metrics: on the gold set, None without gold photos.
        chosen: name of the chosen candidate.
        candidates: all candidates.
        seed: of every random decision.
        commit: of the code, if it runs from a git checkout.
        created_at: ISO 8601, UTC.
        training_s: seconds from examples to card.
        libraries: name to version.
        gold_digest: content id of the gold set, None without gold photos.
        calibration: effect of the temperature.
        auto: False if the lane auto did not lower the loss in two rounds running and should be off.
        verdict: of the promotion gate, None if there was no champion.
        decoding: version of the definition of a photo's pixels, `schemas.pixels.DECODING`.
        variants: the LiteRT variants with the gate's decision about each; empty if none were written.
        left_out: number of labelled rows that could not be used, by reason.
        others: candidates of other backbones that were tried, by the backbone's name; their loss on the
            held-out labels that all have is higher.
        groups: of devices, those of the photos with human labels and of the gold set.
        whitened: whether the head was fitted on whitened principal components: held-out labels decide.
        rolled_back: whether its rollout was rolled back. Not stored in the card: the registry reads it from
            the state of the rollout.
    """

    version: int
    parent: int | None
    dataset_version: int | None
    backbone: str
    weights_digest: str
    classes: list[str]
    signature: dict[str, str]
    temperature: float
    examples: dict[str, dict[str, int]]
    examples_used: dict[str, dict[str, int]]
    metrics: Metrics | None
    chosen: str
    candidates: list[Candidate]
    seed: int
    commit: str | None
    created_at: str
    training_s: float
    libraries: dict[str, str]
    gold_digest: str | None = None
    calibration: Calibration = Calibration()
    auto: bool = True
    verdict: Verdict | None = None
    decoding: int = 1
    variants: list[VariantVerdict] = []
    left_out: dict[str, int] = {}
    others: dict[str, list[Candidate]] = {}
    whitened: bool = False
    groups: list[GroupOutcome] = []
    rolled_back: bool = False

    @property
    def created_at_ms(self) -> int:
        """Time of the training, in milliseconds, UTC."""
        return int(datetime.fromisoformat(self.created_at).timestamp() * 1000)


def encode_card(card: Card) -> bytes:
    """Encode a card as indented JSON, without `rolled_back`."""
    fields = msgspec.to_builtins(card)
    del fields["rolled_back"]  # it belongs to the rollout, which comes after the card is written
    return msgspec.json.format(msgspec.json.encode(fields), indent=2) + b"\n"


def decode_card(content: bytes, path: Path) -> Card:
    """Decode a card that `encode_card` encoded.

    Args:
        content: The JSON.
        path: Its file, for the error.

    Raises:
        PermanentError: The content is not a model card.
    """
    try:
        return msgspec.json.decode(content, type=Card)
    except DECODE_ERRORS as error:
        raise PermanentError(f"no valid model card in {path}: {error}") from None


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that affect a model's figures."""
    return {name: version(name) for name in ("keras", "numpy", "tensorflow")}


def code_commit() -> str | None:
    """Return the commit of the git checkout that this code runs from, None outside of one.

    Reads the files of `.git`, since the git command may not be installed.
    """
    git = Path(__file__).resolve().parents[2] / ".git"
    head = git / "HEAD"
    if not head.is_file():
        return None
    reference = head.read_text("utf-8").strip()
    if not reference.startswith("ref: "):
        return reference
    loose, packed = git / reference[5:], git / "packed-refs"  # git moves old references into one file
    if loose.is_file():
        return loose.read_text("utf-8").strip()
    lines = packed.read_text("utf-8").splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {reference[5:]}")), None)
