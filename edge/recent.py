"""The photos that were answered lately and not harvested, at training size: for a label that follows."""

from collections import OrderedDict

from schemas.codec import decode, encode
from schemas.messages import Sample
from schemas.topics import SAMPLE


class Recent:
    """Samples that were not sent, in case that somebody labels their photos.

    Bounded in bytes: the oldest are forgotten first. A restart forgets all.

    Args:
        most_bytes: Of the encoded samples together; 0 keeps none.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._payloads: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._bytes = 0

    def keep(self, sample: Sample) -> None:
        """Keep a sample."""
        self.forget(sample.device, sample.photo_id)
        payload = encode(SAMPLE, sample)
        self._payloads[sample.device, sample.photo_id] = payload
        self._bytes += len(payload)
        while self._bytes > self.most_bytes:
            self._bytes -= len(self._payloads.popitem(last=False)[1])

    def find(self, node: str, device: str, photo_id: str) -> Sample | None:
        """Return a sample that is still here."""
        payload = self._payloads.get((device, photo_id))
        return None if payload is None else decode(SAMPLE, payload, {"node": node})

    def forget(self, device: str, photo_id: str) -> None:
        """Forget a sample, if it is here."""
        self._bytes -= len(self._payloads.pop((device, photo_id), b""))
