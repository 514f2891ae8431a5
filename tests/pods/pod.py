"""The status of a pod in Kubernetes, as a value."""

from dataclasses import dataclass
from typing import Self

from tests.pods.kubectl import Thing


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod.

    Args:
        name: Its name.
        app: The workload it belongs to.
        node: The node it is bound to; empty if none.
        ready: Whether all its containers are ready.
        restarts: Restarts of its containers since it exists.
        images: Images of its containers.
        uid: Distinguishes it from an earlier pod of the same name.
        ending: Whether it is being deleted.
        reasons: Why its containers do not run.
    """

    name: str
    app: str
    node: str
    ready: bool
    restarts: int
    images: tuple[str, ...]
    uid: str
    ending: bool
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, thing: Thing) -> Self:
        """Return the pod that an object describes."""
        spec, status, metadata = thing["spec"], thing.get("status", {}), thing["metadata"]
        containers = status.get("containerStatuses") or []
        conditions = {one["type"]: one["status"] for one in status.get("conditions") or []}
        states = [(one.get("state") or {}) for one in containers]
        return cls(
            name=metadata["name"],
            app=metadata.get("labels", {}).get("app.kubernetes.io/name", ""),
            node=spec.get("nodeName", ""),
            ready=conditions.get("Ready") == "True",
            restarts=sum(one.get("restartCount", 0) for one in containers),
            images=tuple(one["image"] for one in spec["containers"]),
            uid=metadata["uid"],
            ending="deletionTimestamp" in metadata,
            reasons=tuple(state["waiting"].get("reason", "") for state in states if state.get("waiting")),
        )


def table(pods: list[Pod]) -> str:
    """Return a table of pods."""
    rows = [("POD", "NODE", "READY", "RESTARTS", "IMAGE")]
    for pod in pods:
        shown = ", ".join(image.rpartition("/")[2] for image in pod.images)
        rows.append((pod.name, pod.node, "yes" if pod.ready else "no", str(pod.restarts), shown))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
