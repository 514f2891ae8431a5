"""The measurements, in the order of the document."""

from typing import NamedTuple


class Measurement(NamedTuple):
    """One measurement.

    Args:
        title: Heading in the document.
        module: Module with `async def measure(setting)`.
        weight: Share of the whole time; 0 runs it only if it is named.
    """

    title: str
    module: str
    weight: float


MEASUREMENTS = {
    "pipeline": Measurement("The pipeline against the limit", "bench.pipeline", 16),
    "small": Measurement("The pipeline with Xception-small", "bench.small", 1.5),
    "null": Measurement("The handler's own cost", "bench.null", 2.5),
    "footprint": Measurement("Footprint", "bench.footprint", 2.5),
    "light_server": Measurement("The model server without TensorFlow", "bench.light_server", 2.5),
    "collector": Measurement("The collector and its table", "bench.collector", 4),
    "fleet": Measurement("A fleet", "bench.fleet", 6),
    "swap": Measurement("Model swaps under load", "bench.swap", 3),
    "profile": Measurement("Where the time goes", "bench.profile", 1.5),
}
