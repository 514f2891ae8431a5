"""What the deployer observes of one release: frozen values, the input of `reconcile`."""

from dataclasses import dataclass, field, replace
from typing import Self

from edge.serving.traffic_split import TrafficSplit
from schemas.messages import Release, ServedModel


@dataclass(frozen=True, slots=True)
class Attempt:
    """Steps of this process for a release that cannot be observed.

    Args:
        fetched: The unpacked bundle on disk is the release's, verified by this process.
        activated: The version was made the newest and is to be tested.
        reloaded: The model server was configured to serve the newest version again.
        served_both: The model server was configured to serve both versions.
        tested: The smoke test ended.
        problem: Why it failed, None if it passed.
        losses: How often the model server went away during the smoke test.
        invalid: Why the bundle must not be served, found when it was fetched.
        pruned: Older versions were removed, as far as the disk allows.
        deployed: It was activated at any time, so its success is worth an event.
    """

    fetched: bool = False
    activated: bool = False
    reloaded: bool = False
    served_both: bool = False
    tested: bool = False
    problem: str | None = None
    losses: int = 0
    invalid: str | None = None
    pruned: bool = False
    deployed: bool = False

    def after_wait(self) -> Self:
        """Return what still holds after a wait: the server may have been restarted, the bundle is kept."""
        return type(self)(fetched=self.fetched, deployed=self.deployed)

    def with_test(self, problem: str | None) -> Self:
        """Return this attempt after a smoke test."""
        return replace(self, tested=True, problem=problem)

    def with_loss(self, reason: str) -> Self:
        """Return this attempt after the model server went away during a smoke test."""
        return replace(self, losses=self.losses + 1, problem=reason)


@dataclass(frozen=True, slots=True)
class Folder:
    """What the folder of models holds.

    Args:
        versions: Version directories that the model server watches.
        canary: Versions in the canary folder.
        fetched: A bundle of the desired version is unpacked next to them.
        leftovers: A newer version that stepped aside for the one in place, or a bundle that was fetched.
        unproven: Versions that were activated and have no verdict, with the sha256 of their bundles.
        mismatch: Why the directory of the desired version is not the released model; None if it is, or
            without a directory.
        damage: Why the files of the desired version are not those that were unpacked; None if they are.
        verifiable: Whether the desired version has a manifest; those placed by earlier releases of Gleaner
            have none.
    """

    versions: frozenset[int] = frozenset()
    canary: frozenset[int] = frozenset()
    fetched: bool = False
    leftovers: bool = False
    unproven: frozenset[tuple[int, str]] = frozenset()
    mismatch: str | None = None
    damage: str | None = None
    verifiable: bool = True

    @property
    def newest(self) -> int | None:
        """The version that the model server loads without an order."""
        return max(self.versions, default=None)


@dataclass(frozen=True, slots=True)
class Server:
    """What the model server reports; None for fields that the release's stage does not need.

    Args:
        in_service: The version that answers by the present traffic split.
        champion: The baseline of a canary release.
        challenger: The version of a canary release.
    """

    in_service: ServedModel | None = None
    champion: ServedModel | None = None
    challenger: ServedModel | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """All that a decision depends on.

    Args:
        release: The desired release.
        recorded: The release recorded under the same version number, if any.
        loads: Loads of this release as a challenger, counted on disk.
        folder: None without `models_dir`: others place the models.
        server: The model server.
        split: The present traffic split.
        attempt: What was done for this release.
        rescan_in_s: Seconds until the model server has noticed that a bundle of this number was removed.
        ready_for_s: Seconds since the challenger became ready.
    """

    release: Release
    recorded: Release | None = None
    loads: int = 0
    folder: Folder | None = field(default_factory=Folder)
    server: Server = field(default_factory=Server)
    split: TrafficSplit = field(default_factory=TrafficSplit)
    attempt: Attempt = field(default_factory=Attempt)
    rescan_in_s: float = 0.0
    ready_for_s: float = 0.0

    @property
    def known(self) -> bool:
        """True if the recorded bundle is the released one."""
        return self.recorded is not None and self.recorded.sha256 == self.release.sha256

    @property
    def bundle(self) -> tuple[int, str]:
        """The released version and its digest."""
        return self.release.version, self.release.sha256

    @property
    def model(self) -> str:
        """The version with its model's name, for sentences."""
        return f"model {self.release.model} version {self.release.version}"
