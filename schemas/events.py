"""Names of the events on `gleaner/v1/event/{node}/{name}`, with their meanings.

Readers must accept names that are not listed here: a newer component may publish them (guarantee G7).
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class EventName(StrEnum):
    """An event, named `subject.past_participle`."""

    DOCTOR_PROBED = "doctor.probed"
    DRIFT_DETECTED = "drift.detected"
    FEEDBACK_RECORDED = "feedback.recorded"
    LABELS_WANTED = "labels.wanted"
    MODEL_AVAILABLE = "model.available"
    MODEL_DELAYED = "model.delayed"
    MODEL_FAILED = "model.failed"
    MODEL_MISMATCHED = "model.mismatched"
    MODEL_REFUSED = "model.refused"
    MODEL_TRIED = "model.tried"
    PHOTO_MISNAMED = "photo.misnamed"
    PHOTOS_FORGOTTEN = "photos.forgotten"
    POLICY_FAILED = "policy.failed"
    RELEASE_FAILED = "release.failed"
    ROLLOUT_FINISHED = "rollout.finished"
    ROLLOUT_RETURNED = "rollout.returned"
    ROLLOUT_STAGE = "rollout.stage"
    ROLLOUT_STEERED = "rollout.steered"
    ROUND_FAILED = "round.failed"
    ROUND_FINISHED = "round.finished"
    ROUND_STARTED = "round.started"
    RULE_PROBED = "rule.probed"


MEANINGS: Mapping[EventName, str] = MappingProxyType(
    {
        EventName.DOCTOR_PROBED: "`gleaner doctor` tests that the broker delivers a message",
        EventName.DRIFT_DETECTED: "new photos look different from those that the last training saw",
        EventName.FEEDBACK_RECORDED: "a label from a person is stored in the dataset",
        EventName.LABELS_WANTED: "the next training needs labels, and enough photos wait for one",
        EventName.MODEL_AVAILABLE: "an edge serves a released version to all devices",
        EventName.MODEL_DELAYED: "an edge cannot deploy a release now and tries again",
        EventName.MODEL_FAILED: "a released version failed to load or to pass its smoke test",
        EventName.MODEL_MISMATCHED: "an edge's model takes no photos, or gives no scores for its classes",
        EventName.MODEL_REFUSED: "an edge rejected a release, for example for its signature",
        EventName.MODEL_TRIED: "an edge serves a version as shadow or canary",
        EventName.PHOTO_MISNAMED: "an edge refused photos or labels: the device name is not a DNS label",
        EventName.PHOTOS_FORGOTTEN: "an edge forgot photos as the cloud ordered, see `order_id`",
        EventName.POLICY_FAILED: "a training round could not update the harvest policies",
        EventName.RELEASE_FAILED: "a training round could not release its version",
        EventName.ROLLOUT_FINISHED: "a rollout reached its last stage",
        EventName.ROLLOUT_RETURNED: "a rollout was rolled back to the champion",
        EventName.ROLLOUT_STAGE: "a rollout entered its next stage",
        EventName.ROLLOUT_STEERED: "a rollout carried out an operator's order, see `action` and `by`",
        EventName.ROUND_FAILED: "a training round ended without a new version",
        EventName.ROUND_FINISHED: "a training round made a new version",
        EventName.ROUND_STARTED: "a training round started",
        EventName.RULE_PROBED: "the gateway received a probe of a KubeEdge rule",
    }
)
