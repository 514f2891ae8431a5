"""The whole policy, made of the parts that run at the edge and in the cloud."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import structs

from bench.learning.policies import REVIEWS, Model, Policy
from bench.learning.world import CLASSES, DIM, PLAIN, Photos, Vectors, World, called
from cloud.dataset.example import MIN_TEACHER_LABELS, Example
from cloud.evaluation import promotion_gate
from cloud.labeling.ensemble import fit_ensemble, lane_thresholds, out_of_fold_votes
from cloud.labeling.review_queue import UnlabelledPhoto, most_informative
from cloud.modeling.novelty import fit_novelty, novelty_scores
from cloud.progress import NoProgress
from cloud.training.candidates import Labelled, auto_helps, choose, cross_validate, fit_candidates
from cloud.training.learners import FrozenLearner
from edge.harvest.history import HarvestedSample
from edge.harvest.selector import Selector
from edge.serving.prediction import Prediction
from schemas.lanes import AUDIT, AUTO, HARD
from schemas.messages import NEITHER, HarvestRules

_PHOTO_EVERY_S = 10.0
_SAMPLE_BYTES = 20_000
_DEVICES = 4


@dataclass(slots=True)
class Kept:
    """A photo in the dataset: labelled at first, or a sample.

    Attributes:
        photo_id: its id.
        sight: `[3, D]`, embeddings, as in `Photos`.
        truth: what it shows.
        view: its difference hash.
        lane: that it was harvested in, None if it was labelled at first.
        said: what the edge's model said of it.
        inclusion: with which it was drawn for the audit.
        human: what a person said, a class or `NEITHER`; None if nobody was asked.
        teacher: what the teacher says, None if it does not.
        born: round in which it came.
    """

    photo_id: str
    sight: Vectors
    truth: int
    view: int
    lane: str | None = None
    said: Prediction | None = None
    inclusion: float | None = None
    human: str | None = None
    teacher: int | None = None
    born: int = -1

    @property
    def by_person(self) -> bool:
        """Whether a person named one of the classes."""
        return self.human is not None and self.human != NEITHER


class Full(Policy):
    """Lanes, a teacher, the most informative labels, three candidates, and the gate."""

    def __init__(self, world: World, seed: int) -> None:
        self.kept = [
            Kept(photo_id, world.labelled.sights[:, place], truth, view, human=called(truth))
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

    def live(self, stream: Photos) -> None:
        """Harvest, teach, ask, train, and promote what the gate lets pass."""
        self._harvest(stream)
        self._teach()
        self._ask()
        self._teach()
        challenger = self.fit()
        if self._is_promoted(challenger):
            self.model = challenger
            self.champion_since = self.rounds + 1
        self.rounds += 1
        self.harvester.rules = structs.replace(self.harvester.rules, auto=auto_helps(self.losses))

    def fit(self) -> Model:
        """Train the candidates and take the best."""
        learnt = [kept for kept in self.kept if self._is_learnt(kept)]
        examples = [_example(kept) for kept in learnt]
        known = Labelled.of(examples, CLASSES)
        copies = np.stack([kept.sight[DIM if known.human[at] else PLAIN] for at, kept in enumerate(learnt)])
        learner = FrozenLearner(None, np.stack([kept.sight[PLAIN] for kept in learnt]), len(CLASSES), copies)
        fitted = fit_candidates(learner, known, np.flatnonzero(known.human))
        judged = cross_validate(learner, known, seed=self.seed, progress=NoProgress())
        chosen = choose(fitted, judged)
        self.losses.append({name: judged[name].loss for name in fitted})
        winner = fitted[chosen]
        by_models = [place for place in np.unique(winner.positions) if not known.human[place]]
        self.accepted.count(
            [learnt[place].photo_id for place in by_models],
            known.labels[by_models],
            np.array([learnt[place].truth for place in by_models], np.int64),
        )
        self.novelty = fit_novelty(learner.features[np.unique(winner.positions)], self.seed)
        return Model(winner.head, judged[chosen].temperature)

    def _is_learnt(self, kept: Kept) -> bool:
        if self._is_fresh_audit(kept) or kept.human == NEITHER:
            return False
        if kept.by_person or kept.said is None:
            return True
        taught, auto = kept.teacher is not None, kept.lane == AUTO
        contradicted = auto and taught and kept.said.label != CLASSES[kept.teacher or 0]
        return (taught or auto) and not contradicted

    def _is_fresh_audit(self, kept: Kept) -> bool:
        return kept.lane == AUDIT and kept.born >= self.champion_since

    def _harvest(self, stream: Photos) -> None:
        answers, novelties = self.model.answers(stream), novelty_scores(self.novelty, stream.vectors)
        for place, photo_id in enumerate(stream.ids):
            said = Prediction(
                model="pets",
                version=self.rounds + 1,
                scores=dict(zip(CLASSES, answers[place].tolist(), strict=True)),
                embedding=b"",
                novelty=float(novelties[place]),
                temperature=self.model.temperature,
            )
            now = _PHOTO_EVERY_S * (place + self.rounds * len(stream))
            device, view = f"pi-{place % _DEVICES}", stream.views[place]
            lane, _ = self.harvester.choose(photo_id, device, view, said, now)
            if lane is None:
                continue
            self.harvester.record(
                HarvestedSample(photo_id, device, view, said.label, lane, _SAMPLE_BYTES, now)
            )
            self.kept.append(
                Kept(
                    photo_id,
                    stream.sights[:, place],
                    int(stream.truth[place]),
                    view,
                    lane,
                    said,
                    self.harvester.rules.audit_share if lane == AUDIT else None,
                    born=self.rounds,
                )
            )

    def _teach(self) -> None:
        people = [kept for kept in self.kept if kept.by_person and not self._is_fresh_audit(kept)]
        waiting = [kept for kept in self.kept if kept.human is None and kept.lane != AUDIT]
        sights = [np.stack([kept.sight[:DIM] for kept in people], axis=1)]
        labels = np.array([kept.truth for kept in people], np.int64)
        judged = out_of_fold_votes(sights, labels, len(CLASSES), seed=self.seed)
        if judged is None or not waiting:
            return
        positions, votes = judged
        sampled = np.array([people[place].lane is not None for place in positions])
        hard = np.array([people[place].lane == HARD for place in positions])
        if sampled.sum() < MIN_TEACHER_LABELS:
            return
        thresholds = lane_thresholds(votes.confidence, votes.labels == labels[positions], sampled, hard)
        ensemble = fit_ensemble(sights, labels, len(CLASSES), seed=self.seed)
        votes = ensemble.votes([np.stack([kept.sight[:DIM] for kept in waiting], axis=1)])
        for kept, label, confidence in zip(waiting, votes.labels, votes.confidence, strict=True):
            kept.teacher = int(label) if confidence >= thresholds[kept.lane == HARD] else None

    def _ask(self) -> None:
        waiting = {kept.photo_id: kept for kept in self.kept if kept.human is None}
        for asked in most_informative(map(_waiting, waiting.values()), REVIEWS):
            waiting[asked.photo_id].human = called(waiting[asked.photo_id].truth)

    def _is_promoted(self, challenger: Model) -> bool:
        fresh = [kept for kept in self.kept if self._is_fresh_audit(kept) and kept.by_person]
        verdict = decide_promotion(
            self.model, challenger, self.world.gate, fresh, best=self.best, seed=self.seed
        )
        self.verdicts.append(verdict)
        if verdict.decision == "promote":
            self.best = max(self.best, challenger.accuracy(self.world.gate))
        return verdict.decision == "promote"


def decide_promotion(
    champion: Model, challenger: Model, gold: Photos, audit: Sequence[Kept], *, best: float, seed: int
) -> promotion_gate.Verdict:
    """Let the gate compare two models."""
    on_gold = promotion_gate.PairedPredictions(
        champion.answers(gold), challenger.answers(gold), gold.truth, np.ones(len(gold.truth))
    )
    on_audit = None
    if audit:
        vectors = np.stack([kept.sight[PLAIN] for kept in audit])
        on_audit = promotion_gate.PairedPredictions(
            champion.probabilities(vectors),
            challenger.probabilities(vectors),
            np.array([kept.truth for kept in audit], np.int64),
            np.array([1 / (kept.inclusion or math.nan) for kept in audit]),
        )
    return promotion_gate.decide_promotion(
        promotion_gate.Evidence(on_gold, max(best, champion.accuracy(gold)), CLASSES, on_audit), 1, seed=seed
    )


def _example(kept: Kept) -> Example:
    if kept.human is not None:
        return Example(kept.photo_id, b"", kept.human, "human", 1.0, kept.lane)
    if kept.teacher is not None:
        return Example(kept.photo_id, b"", CLASSES[kept.teacher], "teacher", 1.0, kept.lane)
    assert kept.said is not None
    return Example(kept.photo_id, b"", kept.said.label, "edge", kept.said.confidence, kept.lane)


def _waiting(kept: Kept) -> UnlabelledPhoto:
    assert kept.said is not None
    return UnlabelledPhoto(
        photo_id=kept.photo_id,
        dhash=f"{kept.view:016x}",
        lane=kept.lane,
        edge_label=kept.said.label,
        teacher_label=None if kept.teacher is None else CLASSES[kept.teacher],
        confidence=kept.said.confidence,
        margin=kept.said.margin,
        entropy=kept.said.entropy,
        novelty=kept.said.novelty,
    )
