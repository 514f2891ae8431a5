"""Votes of a device's latest answers: whether an answer counts. Plain methods without I/O."""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping

from bus.newest import put_newest
from schemas.messages import Photo, Policy
from schemas.policy_rules import MAX_FRAMES, Vote

MAX_DEVICES = 1024
"""Most devices whose answers are remembered; the one that was silent for longest makes room."""


class Votes:
    """The latest answers of each device, in the order in which they were given.

    They are in memory only: after a restart a device's answers count again as soon as enough of them agree.
    """

    def __init__(self) -> None:
        self._vote = Vote()
        self._by_device: Mapping[str, Vote] = {}
        self._latest: OrderedDict[str, deque[tuple[str, str]]] = OrderedDict()

    def set_rules(self, policy: Policy) -> None:
        """Take the rules of a policy; the answers so far still vote."""
        self._vote, self._by_device = policy.vote, policy.votes

    def forget(self, covers: Callable[[str, str], bool]) -> None:
        """Forget answers, by device and photo id."""
        for device, latest in self._latest.items():
            kept = [answer for answer in latest if not covers(device, answer[0])]
            self._latest[device] = deque(kept, maxlen=MAX_FRAMES)

    def confirm(self, photo: Photo, label: str) -> bool | None:
        """Add an answer to its device's; return whether it counts, None where no vote is set.

        A late photo does not vote, because it does not show what the camera sees now. A photo that is
        classified twice, after a redelivery, votes once.
        """
        vote = self._by_device.get(photo.device, self._vote)
        if vote.frames == 1 or photo.historical:
            return None
        latest = self._latest.setdefault(photo.device, deque(maxlen=MAX_FRAMES))
        put_newest(self._latest, photo.device, latest, MAX_DEVICES)
        if all(photo_id != photo.photo_id for photo_id, _ in latest):
            latest.append((photo.photo_id, label))
        voting = list(latest)[-vote.frames :]
        return sum(one == label for _, one in voting) >= min(vote.agree, vote.frames)
