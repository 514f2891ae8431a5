"""The full policy: the parts of the product that run at the edge and in the cloud."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from msgspec import structs

from bench.learning.policies import REVIEWS, Model, Policy
from bench.learning.world import (
    CLASSES,
    DIM,
    GRID_DIM,
    GRID_PLAIN,
    PLAIN,
    Photos,
    Vectors,
    World,
    human_label,
)
from cloud.dataset.example import MIN_TEACHER_LABELS, Example
from cloud.evaluation import promotion_gate
from cloud.evaluation.paired_comparison import PairedPredictions
from cloud.labeling.ensemble import fit_ensemble, lane_thresholds, out_of_fold_votes
from cloud.labeling.review_order import Pool, UnlabelledPhoto, pool_weights
from cloud.labeling.review_queue import Embedded, build_pool, newest_first
from cloud.modeling.backbones import EFFICIENTNET_LITE0, EFFICIENTNET_LITE0_GRID, Backbone
from cloud.modeling.linear_head import Head
from cloud.modeling.novelty import fit_novelty, novelty_scores
from cloud.progress import NoProgress
from cloud.training.candidates.candidate_evaluation import evaluate_backbone
from cloud.training.candidates.candidate_results import CandidateResults, better, is_worth_trying
from cloud.training.candidates.candidates import Labelled, auto_helps
from cloud.training.candidates.learners import FrozenLearner
from edge.harvest.history import HarvestedSample
from edge.harvest.selector import Selector
from edge.serving.prediction import Prediction
from schemas.class_names import NEITHER
from schemas.lanes import AUDIT, AUTO, HARD
from schemas.policy_rules import HarvestRules

_PHOTO_EVERY_S = 10.0
_SAMPLE_BYTES = 20_000
_DEVICES = 4


@dataclass(slots=True)
class Sample:
    """A photo in the dataset: labelled from the start, or harvested.

    Attributes:
        photo_id: its id.
        sight: `[3, D]`, embeddings as in `Photos`.
        grid: `[2, D']`, as in `Photos`; None if there is no other network.
        truth: true class index, or `OTHER`.
        view: difference hash.
        lane: harvest lane; None if it was labelled from the start.
        prediction: prediction of the edge.
        inclusion: inclusion probability of an audit.
        human: human label, a class or `NEITHER`; None without one.
        teacher: class index of the teacher's label; None if it abstains.
        round_number: round of the harvest; -1 if it was labelled from the start.
        group: device and version in service; empty if it was labelled from the start.
        embedding: by the network in service; None if it was labelled from the start.
    """

    photo_id: str
    sight: Vectors
    grid: Vectors | None
    truth: int
    view: int
    lane: str | None = None
    prediction: Prediction | None = None
    inclusion: float | None = None
    human: str | None = None
    teacher: int | None = None
    round_number: int = -1
    group: tuple[object, ...] = ()
    embedding: Vectors | None = None

    def vector(self, backbone: str) -> Vectors:
        """Return the embedding of the plain photo by one of the two networks."""
        if backbone == EFFICIENTNET_LITE0.name:
            return np.asarray(self.sight[PLAIN])
        assert self.grid is not None
        return np.asarray(self.grid[GRID_PLAIN])

    def copy(self, backbone: str) -> Vectors:
        """Return the embedding of the dimmed copy."""
        if backbone == EFFICIENTNET_LITE0.name:
            return np.asarray(self.sight[DIM])
        assert self.grid is not None
        return np.asarray(self.grid[GRID_DIM])

    @property
    def has_human_class(self) -> bool:
        """True if the human label is one of the classes."""
        return self.human is not None and self.human != NEITHER


class Full(Policy):
    """Harvest lanes, teacher, review queue, three candidates on one network or two, and promotion gate.

    Args:
        world: As for `Policy`.
        seed: As for `Policy`.
        drawn: Whether people label photos of the stream at random instead of those of the review queue.
        gated: Whether the gate decides; if not, every version is promoted.
    """

    def __init__(self, world: World, seed: int, *, drawn: bool = False, gated: bool = True) -> None:
        self.drawn = drawn
        self.gated = gated
        self.samples = [
            Sample(
                photo_id,
                world.labelled.sights[:, place],
                None if world.labelled.grid is None else world.labelled.grid[:, place],
                truth,
                view,
                human=human_label(truth, world.classes),
            )
            for place, (photo_id, truth, view) in enumerate(
                zip(world.labelled.ids, world.labelled.truth.tolist(), world.labelled.views, strict=True)
            )
        ]
        self.rounds = 0
        self.champion_since = 0
        self.best = 0.0
        self.losses: list[dict[str, float | None]] = []
        self.verdicts: list[promotion_gate.Verdict] = []
        self.harvester = Selector(HarvestRules())
        super().__init__(world, seed)
        self.novelty = self.fitted_novelty

    def learn(self, stream: Photos) -> None:
        """Harvest, auto-label, review, train, and promote the challenger if the gate passes it."""
        self._harvest(stream)
        self._teach()
        self._review()
        self._teach()  # again: the teacher learns from the new human labels
        challenger = self.fit()
        if self._is_promoted(challenger):
            self.model, self.novelty = challenger, self.fitted_novelty
            self.champion_since = self.rounds + 1
        self.rounds += 1
        self.harvester.rules = structs.replace(self.harvester.rules, auto=auto_helps(self.losses))

    def fit(self) -> Model:
        """Train the candidates, on the second network too where that may pay, and select the best."""
        trained_on = [sample for sample in self.samples if self._is_trained_on(sample)]
        best = self._evaluate(EFFICIENTNET_LITE0, trained_on)
        if self.world.labelled.grid is not None and is_worth_trying(best, EFFICIENTNET_LITE0_GRID):
            best = better(best, self._evaluate(EFFICIENTNET_LITE0_GRID, trained_on))
        self.losses.append({name: best.held_out[name].loss for name in best.fitted})
        self.results, self.trained_on = best, trained_on
        winner, known = best.chosen_fit, Labelled.of(best.examples, self.world.classes)
        by_models = [place for place in np.unique(winner.positions) if not known.human[place]]
        self.accepted.count(
            [trained_on[place].photo_id for place in by_models],
            known.labels[by_models],
            np.array([trained_on[place].truth for place in by_models], np.int64),
        )
        self.fitted_novelty = fit_novelty(best.training_embeddings)
        return Model(winner.head, best.chosen_held_out.temperature, best.backbone.name)

    def _evaluate(self, backbone: Backbone, trained_on: Sequence[Sample]) -> CandidateResults:
        examples = [_example(sample, self.world.classes) for sample in trained_on]
        features = np.stack([sample.vector(backbone.name) for sample in trained_on])
        copies = features.copy()
        for at, (sample, example) in enumerate(zip(trained_on, examples, strict=True)):
            if example.human:
                copies[at] = sample.copy(backbone.name)
        basis = _span(np.concatenate([features, copies]))
        learner = FrozenLearner(None, features @ basis, len(self.world.classes), copies @ basis)
        results = evaluate_backbone(
            backbone, learner, self.world.classes, examples, [], seed=self.seed, progress=NoProgress()
        )
        fitted = {
            name: replace(one, head=Head(basis @ one.head.kernel, one.head.bias))
            for name, one in results.fitted.items()
        }
        embedded = features[np.unique(results.chosen_fit.positions)]
        return replace(results, fitted=fitted, training_embeddings=embedded)

    def _is_trained_on(self, sample: Sample) -> bool:
        # Audits since the last promotion only evaluate: training on them would bias the comparison.
        if self._is_fresh_audit(sample) or sample.human == NEITHER:
            return False
        if sample.has_human_class or sample.prediction is None:
            return True
        # A teacher that contradicts a confident prediction makes its label too doubtful to use.
        taught, auto = sample.teacher is not None, sample.lane == AUTO
        contradicted = auto and taught and sample.prediction.label != self.world.classes[sample.teacher or 0]
        return (taught or auto) and not contradicted

    def _is_fresh_audit(self, sample: Sample) -> bool:
        return sample.lane == AUDIT and sample.round_number >= self.champion_since

    def _harvest(self, stream: Photos) -> None:
        vectors = stream.vectors_of(self.model.backbone)
        answers, novelties = self.model.answers(stream), novelty_scores(self.novelty, vectors)
        for place, photo_id in enumerate(stream.ids):
            prediction = Prediction(
                model="pets",
                version=self.rounds + 1,
                scores=dict(zip(self.world.classes, answers[place].tolist(), strict=True)),
                embedding=b"",
                novelty=float(novelties[place]),
                temperature=self.model.temperature,
            )
            now = _PHOTO_EVERY_S * (place + self.rounds * len(stream))
            device = stream.devices[place] if stream.devices else f"pi-{place % _DEVICES}"
            view = stream.views[place]
            lane, _ = self.harvester.choose(photo_id, device, view, prediction, now)
            if lane is None:
                continue
            self.harvester.record(
                HarvestedSample(photo_id, device, view, prediction.label, lane, _SAMPLE_BYTES, now)
            )
            self.samples.append(
                Sample(
                    photo_id,
                    stream.sights[:, place],
                    None if stream.grid is None else stream.grid[:, place],
                    int(stream.truth[place]),
                    view,
                    lane,
                    prediction,
                    self.harvester.rules.audit_share if lane == AUDIT else None,
                    round_number=self.rounds,
                    # A camera's photos under one version are standardised together, as in the review queue.
                    group=(device, self.champion_since),
                    embedding=vectors[place],
                )
            )

    def _teach(self) -> None:
        people = [
            sample for sample in self.samples if sample.has_human_class and not self._is_fresh_audit(sample)
        ]
        waiting = [sample for sample in self.samples if sample.human is None and sample.lane != AUDIT]
        sights = [np.stack([sample.sight[:DIM] for sample in people], axis=1)]
        labels = np.array([sample.truth for sample in people], np.int64)
        judged = out_of_fold_votes(sights, labels, len(self.world.classes), seed=self.seed)
        if judged is None or not waiting:
            return
        positions, votes = judged
        sampled = np.array([people[place].lane is not None for place in positions])
        hard = np.array([people[place].lane == HARD for place in positions])
        if sampled.sum() < MIN_TEACHER_LABELS:
            return
        thresholds = lane_thresholds(votes.confidence, votes.labels == labels[positions], sampled, hard)
        ensemble = fit_ensemble(sights, labels, len(self.world.classes), seed=self.seed)
        votes = ensemble.votes([np.stack([sample.sight[:DIM] for sample in waiting], axis=1)])
        for sample, label, confidence in zip(waiting, votes.labels, votes.confidence, strict=True):
            sample.teacher = int(label) if confidence >= thresholds[sample.lane == HARD] else None

    def _review(self) -> None:
        waiting = {sample.photo_id: sample for sample in self.samples if sample.human is None}
        if self.drawn:
            newest = [key for key, sample in waiting.items() if sample.round_number == self.rounds]
            asked = self.draw.permutation(newest)[:REVIEWS].tolist()
        else:
            asked = self._asked_first(waiting)
        for photo_id in asked:
            waiting[photo_id].human = human_label(waiting[photo_id].truth, self.world.classes)

    def _asked_first(self, waiting: dict[str, Sample]) -> list[str]:
        newer, older = (
            [
                _waiting(one, self.world.classes)
                for one in waiting.values()
                if (one.round_number < self.rounds) == before
            ]
            for before in (False, True)
        )
        # Imported photos have no embedding in the dataset.
        rated = [_embedded(one) for one in self.samples if one.human is not None and one.lane is not None]

        def pool(photos: Sequence[UnlabelledPhoto]) -> Pool | None:
            weights = pool_weights(photos)
            return build_pool(weights, {key: _embedded(waiting[key]) for key in weights}, rated)

        return [photo.photo_id for photo in newest_first(newer, older, REVIEWS, pool)]

    def _is_promoted(self, challenger: Model) -> bool:
        fresh = [sample for sample in self.samples if self._is_fresh_audit(sample) and sample.has_human_class]
        verdict = decide_promotion(
            self.model,
            challenger,
            self.world.gate,
            fresh,
            best=self.best,
            seed=self.seed,
            classes=self.world.classes,
            held_out=self._held_out(),
        )
        self.verdicts.append(verdict)
        promoted = verdict.decision == "promote" or not self.gated
        if promoted:
            self.best = max(self.best, challenger.accuracy(self.world.gate))
        return promoted

    def _held_out(self) -> PairedPredictions | None:
        """Return both versions' answers to labelled photos that the champion has not seen; None without any.

        The challenger's are those of the cross-validation.
        """
        held_out = self.results.chosen_held_out
        photos = [self.trained_on[position] for position in held_out.positions]
        new = [row for row, photo in enumerate(photos) if photo.round_number >= self.champion_since]
        if not new:
            return None
        seen = np.stack([photos[row].vector(self.model.backbone) for row in new])
        return PairedPredictions(
            self.model.probabilities(seen),
            self.results.held_out_answers[new],
            held_out.labels[new],
            np.ones(len(new)),
        )


def decide_promotion(
    champion: Model,
    challenger: Model,
    gold: Photos,
    audit: Sequence[Sample],
    *,
    best: float,
    seed: int,
    classes: Sequence[str] = CLASSES,
    held_out: PairedPredictions | None = None,
) -> promotion_gate.Verdict:
    """Return the verdict of the promotion gate about two models."""
    on_gold = PairedPredictions(
        champion.answers(gold), challenger.answers(gold), gold.truth, np.ones(len(gold.truth))
    )
    on_audit = None
    if audit:
        before, after = (
            model.probabilities(np.stack([sample.vector(model.backbone) for sample in audit]))
            for model in (champion, challenger)
        )
        on_audit = PairedPredictions(
            before,
            after,
            np.array([sample.truth for sample in audit], np.int64),
            np.array([1 / (sample.inclusion or math.nan) for sample in audit]),
        )
    return promotion_gate.decide_promotion(
        promotion_gate.Evidence(
            on_gold,
            max(best, champion.accuracy(gold)),
            tuple(classes),
            on_audit,
            held_out=held_out,
        ),
        1,
        seed=seed,
    )


def _span(vectors: Vectors) -> Vectors:
    """Return an orthonormal basis `[D, d]` of the space that vectors `[N, D]` span.

    A head and principal components of vectors are the same there, and the dozens of heads of a round need
    not find that space one by one, which took most of the time.
    """
    if len(vectors) >= vectors.shape[1]:
        return np.eye(vectors.shape[1], dtype=np.float32)
    return np.linalg.qr(vectors.astype(np.float64).T)[0]


def _example(sample: Sample, classes: Sequence[str]) -> Example:
    if sample.human is not None:
        return Example(sample.photo_id, b"", sample.human, "human", 1.0, sample.lane)
    if sample.teacher is not None:
        return Example(sample.photo_id, b"", classes[sample.teacher], "teacher", 1.0, sample.lane)
    assert sample.prediction is not None
    return Example(
        sample.photo_id, b"", sample.prediction.label, "edge", sample.prediction.confidence, sample.lane
    )


def _embedded(sample: Sample) -> Embedded:
    assert sample.embedding is not None
    return Embedded(sample.embedding, sample.group)


def _waiting(sample: Sample, classes: Sequence[str]) -> UnlabelledPhoto:
    assert sample.prediction is not None
    return UnlabelledPhoto(
        photo_id=sample.photo_id,
        device=str(sample.group[0]),
        dhash=f"{sample.view:016x}",
        lane=sample.lane,
        edge_label=sample.prediction.label,
        teacher_label=None if sample.teacher is None else classes[sample.teacher],
        confidence=sample.prediction.confidence,
        margin=sample.prediction.margin,
        entropy=sample.prediction.entropy,
        novelty=sample.prediction.novelty,
    )
