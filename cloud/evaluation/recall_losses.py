"""Losses of recall: whether a version that replaces another one fails a class. No I/O.

With many classes and few photos of each, one of them nearly always loses a photo by chance, so that a loss
counts by its significance among all classes. Classes that have too few photos to show any loss are tested
together.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

from cloud.evaluation.metrics import points, significant
from cloud.modeling.arrays import Bools, Ints

SIGNIFICANCE = 0.05
FEW_CLASSES = 2
"""With two classes a gain in one may be paid for by the other: every loss has to be excluded."""

MIN_TOTAL_LOSS = 5
"""Photos that the champion gets right before a class that the challenger never gets right counts as lost."""

RecallFinding: TypeAlias = tuple[Literal["keep", "inconclusive", "promote"], str]


class RecallLoss(NamedTuple):
    """Change of the recall of one class, or of several together.

    Attributes:
        name: of the class; what it is called in a reason.
        photos: number of its photos, at least 1.
        only_champion: photos that the champion alone gets right.
        only_challenger: photos that the challenger alone gets right.
        both: photos that both get right.
    """

    name: str
    photos: int
    only_champion: int
    only_challenger: int
    both: int

    @property
    def lost(self) -> float:
        """The champion's recall minus the challenger's."""
        return (self.only_champion - self.only_challenger) / self.photos

    @property
    def p_value(self) -> float:
        """Probability of at least this number of losses, if both versions were equally good."""
        if self.only_champion <= self.only_challenger:
            return 1.0  # no loss; and a binomial test needs at least one trial
        from scipy.stats import binomtest  # noqa: PLC0415 - a second to load, and cards import the gate

        trials = self.only_champion + self.only_challenger
        return float(binomtest(self.only_champion, trials, alternative="greater").pvalue)

    @property
    def is_total(self) -> bool:
        """True if the challenger gets none right of a class that the champion knew."""
        return self.only_challenger == self.both == 0 and self.only_champion >= MIN_TOTAL_LOSS

    def __str__(self) -> str:
        return f"recall of {self.name} {points(-self.lost)} points on {self.photos} photos"


def find_recall_losses(
    champion: Bools, challenger: Bools, truth: Ints, classes: Sequence[str], *, limit: float, better: bool
) -> Iterator[RecallFinding]:
    """Yield what speaks against a challenger, and the largest loss that does not.

    A significant loss keeps the champion: in McNemar's test, one-sided, by Holm's method over all classes.
    Other losses above the limit are inconclusive, unless the challenger is better over all photos of more
    than two classes and still gets photos of each class right.

    Args:
        champion: `[N]`, the photos that the champion gets right.
        challenger: `[N]`, those of the challenger.
        truth: `[N]`, classes of the photos.
        classes: K names.
        limit: Largest loss of recall that needs no reason, in [0, 1].
        better: Whether the challenger is significantly better over all photos.
    """
    by_class = list(_by_class(champion, challenger, truth, classes))
    many = len(by_class) > FEW_CLASSES
    tested = list(_pooled(by_class) if many else by_class)
    shown = significant({str(at): loss.p_value for at, loss in enumerate(tested)}, SIGNIFICANCE)
    # One photo of fifty is 0.02 plus a rounding error.
    lost = {str(at): loss for at, loss in enumerate(tested) if loss.lost > limit + 1e-9}
    yield from (("keep", f"{loss}: worse") for at, loss in lost.items() if at in shown)
    open_losses = [loss for at, loss in lost.items() if at not in shown]
    if not open_losses:
        return
    if not (better and many):
        yield from (("inconclusive", f"{loss}: not significant") for loss in open_losses)
        return
    if total := [loss for loss in by_class if loss.is_total]:
        yield from (("inconclusive", f"{loss}: none is right any more") for loss in total)
        return
    worst = max(open_losses, key=lambda loss: loss.lost)
    yield "promote", f"{worst}: the largest loss, not significant among {len(by_class)} classes"


def _by_class(
    champion: Bools, challenger: Bools, truth: Ints, classes: Sequence[str]
) -> Iterator[RecallLoss]:
    for number, name in enumerate(classes):
        of_class = truth == number
        if of_class.any():
            only_champion = int((champion & ~challenger & of_class).sum())
            only_challenger = int((challenger & ~champion & of_class).sum())
            both = int((champion & challenger & of_class).sum())
            yield RecallLoss(name, int(of_class.sum()), only_champion, only_challenger, both)


def _pooled(by_class: Sequence[RecallLoss]) -> Iterator[RecallLoss]:
    """Yield classes with enough photos to show a loss, and the others as one."""
    # Even if all n photos were lost, the p-value would be at least 2^-n.
    enough = [loss for loss in by_class if 0.5**loss.photos <= SIGNIFICANCE / len(by_class)]
    few = [loss for loss in by_class if loss not in enough]
    yield from enough
    if len(few) == 1:
        yield from few
    elif few:
        _, *counts = zip(*few, strict=True)
        yield RecallLoss(f"{len(few)} classes with few photos", *map(sum, counts))
