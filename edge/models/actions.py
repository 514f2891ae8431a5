"""The actions between which `reconcile` chooses, as frozen values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fetch:
    """Download, verify and unpack the bundle next to the served versions."""


@dataclass(frozen=True, slots=True)
class Restore:
    """Copy the version out of the canary folder instead of downloading it again."""


@dataclass(frozen=True, slots=True)
class WaitForRescan:
    """Sleep until the model server has seen that an earlier bundle of this number is gone."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Activate:
    """Make the fetched version the newest, which is the one that the model server loads.

    Args:
        promote: True if it is already loaded as the challenger and answers everything from now on.
    """

    promote: bool


@dataclass(frozen=True, slots=True)
class Revert:
    """Undo the activation of a killed run that left no verdict."""


@dataclass(frozen=True, slots=True)
class Displace:
    """Remove the version because its files are damaged: an older one is served until it is fetched again."""

    reason: str


@dataclass(frozen=True, slots=True)
class ServeNewest:
    """Have the model server watch the newest version again, while the canary folder stays."""


@dataclass(frozen=True, slots=True)
class SmokeTest:
    """Wait until the version is loaded and answers one image.

    Args:
        alone: True if it has to be the newest served version; False in a canary.
    """

    alone: bool


@dataclass(frozen=True, slots=True)
class Record:
    """Write the release to disk as the one installed under its version number; its version is proven."""


@dataclass(frozen=True, slots=True)
class Prune:
    """Remove the versions that no rollback needs, and bundles that were fetched for other releases."""


@dataclass(frozen=True, slots=True)
class StageCanary:
    """Put champion and challenger side by side into the canary folder."""


@dataclass(frozen=True, slots=True)
class ServeBoth:
    """Have the model server serve champion and challenger from the canary folder.

    Args:
        count_load: True if the server does not have the challenger, so that this makes it load.
    """

    count_load: bool


@dataclass(frozen=True, slots=True)
class StartSplit:
    """Label both versions on the model server and send the challenger its share of the photos."""


@dataclass(frozen=True, slots=True)
class FollowPlan:
    """Change stage or share of the running canary."""


@dataclass(frozen=True, slots=True)
class PauseSplit:
    """Let the champion answer everything until the challenger is loaded again."""


@dataclass(frozen=True, slots=True)
class StopSplit:
    """Let the version in service answer everything from now on."""


@dataclass(frozen=True, slots=True)
class EndCanary:
    """Have the newest version served alone, then remove the canary folder."""


@dataclass(frozen=True, slots=True)
class ForgetLoads:
    """Reset the count of loads of a challenger that has stayed loaded."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """The desired state is reached."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Not possible now; retry later."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """This node cannot follow the release; nothing has changed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fail:
    """The bundle must not be served; nothing has changed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rollback:
    """Remove the activated version; the previous one is served again."""

    reason: str


@dataclass(frozen=True, slots=True)
class RejectCanary:
    """End the canary of a version that must not be served; the champion is served alone."""

    reason: str


VersionStep = (
    Fetch
    | Restore
    | WaitForRescan
    | Activate
    | Revert
    | Displace
    | ServeNewest
    | SmokeTest
    | Prune
    | Rollback
)
"""Actions on the version directories."""

CanaryStep = (
    StageCanary
    | ServeBoth
    | StartSplit
    | FollowPlan
    | PauseSplit
    | StopSplit
    | ForgetLoads
    | EndCanary
    | RejectCanary
)
"""Actions on a canary."""

Undo = Rollback | RejectCanary
"""Actions that restore the previous version and end the deployment."""

Final = Nothing | Wait | Refuse | Fail | Undo
"""Actions after which there is nothing more to do for this release, or nothing now."""

Step = Record | VersionStep | CanaryStep
"""Actions that are performed."""

Action = Step | Final
