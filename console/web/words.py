"""Words for the codes of the contract: shown on pages instead of `between-thresholds` or `corrupt-image`.

A code that is not here, of a later version, is shown as it is.
"""

from collections.abc import Mapping

from console.web.languages import N_

LANES: Mapping[str, str] = {
    "auto": N_("auto"),
    "hard": N_("hard"),
    "audit": N_("audit"),
    "feedback": N_("feedback"),
}
HARVEST: Mapping[str, str] = {
    **LANES,
    "already-waiting": N_("waits to be sent already"),
    "audit-quota": N_("quota of audits used up"),
    "audit-quota-per-device": N_("quota of audits of the device used up"),
    "auto-off": N_("lane auto is off"),
    "between-thresholds": N_("neither sure nor unsure enough"),
    "cap-bytes-per-day": N_("cap of bytes per day reached"),
    "cap-bytes-per-hour": N_("cap of bytes per hour reached"),
    "cap-bytes-per-minute": N_("cap of bytes per minute reached"),
    "cap-per-day": N_("cap per day reached"),
    "cap-per-hour": N_("cap per hour reached"),
    "cap-per-minute": N_("cap per minute reached"),
    "damaged": N_("damaged photo"),
    "device-share-per-day": N_("share of the device per day used up"),
    "device-share-per-hour": N_("share of the device per hour used up"),
    "device-share-per-minute": N_("share of the device per minute used up"),
    "forgotten": N_("taken before its camera was forgotten"),
    "near-duplicate": N_("near-duplicate"),
    "outbox-full": N_("outbox is full"),
    "quota": N_("quota of the class used up"),
    "too-large": N_("too large"),
    "undecodable": N_("cannot be decoded"),
    "unknown": N_("unknown"),
    "unwanted": N_("unwanted"),
}
"""Lanes, and why a photo was not harvested; the tests compare them with the edge's."""
ANSWERS: Mapping[str, str] = {
    "corrupt-image": N_("corrupt image"),
    "deferred": N_("deferred"),
    "expired": N_("expired"),
    "malformed-message": N_("malformed message"),
    "rejected": N_("rejected"),
    "too-large": N_("too large"),
    "too-many-pixels": N_("too many pixels"),
    "unsupported-image": N_("unsupported image"),
    "unsupported-version": N_("unsupported version"),
}
"""Answers without a class: codes of rejections, and statuses."""
MODEL_STATES: Mapping[str, str] = {
    "absent": N_("absent"),
    "available": N_("available"),
    "failed": N_("failed"),
    "loading": N_("loading"),
}
ORDERS: Mapping[str, str] = {
    "pause": N_("Pause"),
    "resume": N_("Go on"),
    "promote": N_("Promote"),
    "roll-back": N_("Go back"),
}
ROLES: Mapping[str, str] = {"viewer": N_("viewer"), "reviewer": N_("reviewer"), "operator": N_("operator")}
DONE: Mapping[str, str] = {
    "discarded": N_("The sample is discarded."),
    "forgotten": N_("The photo is taken out for good."),
    "labelled": N_("The label is recorded; the next training uses it."),
}
"""The message of a page after one of its forms was sent, by the word in its address."""
FACTS: Mapping[str, str] = {
    "action": N_("order"),
    "at_ms": N_("at"),
    "began_ms": N_("began"),
    "by": N_("by"),
    "champion": N_("champion"),
    "decision": N_("decision"),
    "gold_accuracy": N_("gold accuracy"),
    "group": N_("group"),
    "label": N_("label"),
    "labels": N_("labels"),
    "missing": N_("missing"),
    "awaiting": N_("waiting for a label"),
    "node": N_("node"),
    "outcome": N_("outcome"),
    "photo_id": N_("photo"),
    "photos": N_("photos"),
    "samples": N_("samples"),
    "share": N_("share"),
    "stage": N_("stage"),
    "trigger": N_("trigger"),
    "version": N_("version"),
}
"""Facts of events; others have their name in the contract."""
_MESSAGES: Mapping[str, str] = {
    "command": N_("command"),
    "event": N_("event"),
    "feedback": N_("feedback"),
    "image": N_("image"),
    "photo": N_("photo"),
    "policy": N_("policy"),
    "receipt": N_("receipt"),
    "release": N_("release"),
    "result": N_("result"),
    "sample": N_("sample"),
    "status": N_("status"),
}
VALUES: Mapping[str, Mapping[str, str]] = {
    "current_step": {"shadow": N_("shadow"), "all": N_("all")},
    "decision": {
        "promote": N_("Promote"),
        "keep": N_("Keep the champion"),
        "inconclusive": N_("inconclusive"),
    },
    "of": {"gold": N_("gold"), "held-out": N_("held-out")},
    "kind": _MESSAGES,
    "phase": {"running": N_("running"), "finished": N_("finished"), "returned": N_("rolled back")},
    "subject": _MESSAGES,
}
"""Single words in a sentence, by the name of their place in its template."""
OTHERS = (
    N_("Connection refused"),
    N_("Connection reset by peer"),
    N_("File name too long"),
    N_("Input/output error"),
    N_("Is a directory"),
    N_("Name or service not known"),
    N_("Network is unreachable"),
    N_("No route to host"),
    N_("No space left on device"),
    N_("No such file or directory"),
    N_("Not a directory"),
    N_("Operation not permitted"),
    N_("Permission denied"),
    N_("Read-only file system"),
    N_("Temporary failure in name resolution"),
    N_("Too many open files"),
    N_("timed out"),
    N_("%(found)s - at `%(place)s`"),
    N_("Expected `%(expected)s`, got `%(got)s`"),
    N_("Expected `%(expected)s`"),
    N_("Input data was truncated"),
    N_("Invalid enum value %(value)s"),
    N_("JSON is malformed: %(found)s"),
    N_("MessagePack data is malformed: %(found)s"),
    N_("Object contains unknown field `%(name)s`"),
    N_("Object missing required field `%(name)s`"),
)
"""Messages of the operating system and of msgspec that our sentences quote."""
