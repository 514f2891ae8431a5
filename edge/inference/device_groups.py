"""The groups of a node's devices, as the policy in force has them. Plain methods without I/O."""

from collections.abc import Mapping

from schemas.groups.membership import NO_GROUP, group_of
from schemas.messages import Policy

MAX_DEVICES = 1024
"""Most devices whose group is remembered, to match the patterns once for each."""


class DeviceGroups:
    """Finds the group of a device."""

    def __init__(self) -> None:
        self._node = ""
        self._groups: Mapping[str, str] = {}
        self._known: dict[str, str] = {}

    def __bool__(self) -> bool:
        """Return whether the policy has any group."""
        return bool(self._groups)

    def set_rules(self, policy: Policy) -> None:
        """Take the groups of a policy; they count for the next answer."""
        self._node, self._groups, self._known = policy.node, policy.groups, {}

    def of(self, device: str) -> str:
        """Return the group of a device, empty if it has none."""
        if not self._groups:
            return NO_GROUP
        if (group := self._known.get(device)) is None:
            if len(self._known) >= MAX_DEVICES:
                self._known.clear()
            group = self._known[device] = group_of(self._groups, self._node, device)
        return group
