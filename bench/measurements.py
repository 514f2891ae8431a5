"""What can be measured, in the order of the document."""

from typing import NamedTuple


class Measurement(NamedTuple):
    """What can be measured.

    Args:
        title: In the document.
        module: Has `async def measure(setting)`.
        weight: Its part of the whole time; 0 leaves it out unless it is named.
    """

    title: str
    module: str
    weight: float


MEASUREMENTS = {
    "pipeline": Measurement("The pipeline against the limit", "bench.pipeline", 13),
    "small": Measurement("The pipeline with Xception-small", "bench.small", 1.5),
    "null": Measurement("The handler's own cost", "bench.null", 2.5),
    "footprint": Measurement("Footprint", "bench.footprint", 2.5),
    "collector": Measurement("The collector and its table", "bench.collector", 5),
    "fleet": Measurement("A fleet", "bench.fleet", 7),
    "swap": Measurement("Model swaps under load", "bench.swap", 4),
    "profile": Measurement("Where the time goes", "bench.profile", 0),
}
