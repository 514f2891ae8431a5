"""What people say of versions: weighted shares of right answers, and who is surely worse. No I/O."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from cloud.evaluation.metrics import wilson_interval
from cloud.modeling.arrays import Floats

ENOUGH_AUDITS = 20
"""Audited photos from which a champion's accuracy says something; a challenger needs no fixed number."""
RECENT_DAYS = 14
"""How long before a trial the champion's audits still count, where there are too few since."""
SURELY = 0.001
"""A version goes back when one as accurate as the champion gets so few right less often than this."""

_GRID = (np.arange(2000) + 0.5) / 2000


def weight_of(inclusion: float | None) -> float:
    """Return how many photos one stands for that was drawn: one over the probability of that.

    Where it is unknown, a photo stands for itself: the least that is certain, and little beside others.
    """
    return 1 / inclusion if inclusion else 1.0


@dataclass(frozen=True, slots=True)
class Audit:
    """What people say of a version's answers to photos that were drawn at random.

    Attributes:
        photos: Audited.
        right: Of these, those whose label a person confirms.
        weight: How many photos they stand for.
        weight_right: How many photos the right ones stand for.
        weight_squares: Sum of the squares of the weights.
    """

    photos: int = 0
    right: int = 0
    weight: float = 0.0
    weight_right: float = 0.0
    weight_squares: float = 0.0

    @classmethod
    def of(cls, judged: Iterable[tuple[bool, float]]) -> "Audit":
        """Add up answers: whether each is right, and how many photos it stands for."""
        return sum((cls(1, right, weight, right * weight, weight**2) for right, weight in judged), cls())

    def __add__(self, other: "Audit") -> "Audit":
        """Take two audits of one version together."""
        return Audit(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))

    @property
    def accuracy(self) -> float:
        """Share of right answers among all photos that it could have been asked; needs a photo."""
        return self.weight_right / self.weight

    @property
    def effective(self) -> float:
        """Photos of equal weight that would say as much.

        Source: Kish, Survey Sampling (1965), effective sample size.
        """
        return round(self.weight**2 / self.weight_squares, 6) if self.photos else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % Wilson interval; needs a photo."""
        return wilson_interval(self.accuracy * self.effective, self.effective)


@dataclass(frozen=True, slots=True)
class Audits:
    """What people say of both versions of a rollout.

    Attributes:
        challenger: Since the trial began.
        champion: Since the trial began.
        before: The champion, in the days before that.
    """

    challenger: Audit = Audit()
    champion: Audit = Audit()
    before: Audit = Audit()

    def reference(self) -> tuple[Audit, str]:
        """Return what the challenger is held against, and of when that is.

        The champion's answers of the same days, so that both saw the same; only where there are too few,
        those of the days before too.
        """
        if self.champion.effective >= ENOUGH_AUDITS:
            return self.champion, "since the trial began"
        return self.champion + self.before, f"since {RECENT_DAYS} days before the trial"


def chance_as_good(champion: Audit, challenger: Audit) -> float:
    """Return how probable it is that one as accurate as the champion gets no more right than the challenger.

    The champion's accuracy has a Beta posterior over a uniform prior. Of the challenger nothing is supposed:
    the tail of the binomial distribution is a Beta distribution too, of one mistake less. So no number of
    photos is needed: of a version that gets nearly all wrong six are enough, of one that is a little worse it
    takes hundreds; and one without a mistake, or without an audit, is never found worse.

    False alarms: of versions that are equally good, looked at after each of 200 audits, about 1 % are ever
    below `SURELY`, and fewer than 2 % whatever their accuracy, the challenger's share, and how much is known
    of the champion.

    Source: Clopper and Pearson, The use of confidence or fiducial limits (1934), the one-sided limit.
    """
    one, other = _posterior(champion), _posterior(challenger, mistakes=-1)
    return float(other @ (one.cumsum() - one / 2))


def _posterior(audit: Audit, mistakes: int = 0) -> Floats:
    """Return the probability of each accuracy on a grid, with so many mistakes more than were found."""
    right = audit.accuracy * audit.effective if audit.photos else 0.0
    wrong = audit.effective - right + mistakes
    logarithm = right * np.log(_GRID) + wrong * np.log1p(-_GRID)
    density = np.exp(logarithm - logarithm.max())
    return np.asarray(density / density.sum())
