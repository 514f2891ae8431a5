"""How far the frames of a stream are behind, by their own times."""

import math


class LagMeter:
    """Compare the times of frames with those of their arrival.

    The lag counts from the frame that was least late. A clock of the camera that drifts, or jumps back,
    looks like a lag too.
    """

    def __init__(self) -> None:
        self._least_s = math.inf

    def lag_s(self, position_s: float, now_s: float) -> float:
        """Return the lag of a frame in seconds.

        Args:
            position_s: Time of the frame in the stream.
            now_s: Time of its arrival, by any clock.
        """
        offset_s = now_s - position_s
        self._least_s = min(self._least_s, offset_s)
        return offset_s - self._least_s
