"""Models that were made elsewhere: load them, and give them the form in which our own are exported."""

from cloud.modeling.adopted.load import (
    AdoptionError,
    ForeignModel,
    ModelSource,
    answer_warnings,
    load_model,
)
from cloud.modeling.adopted.preprocessing import Preprocessing, parse_preprocessing

__all__ = [
    "AdoptionError",
    "ForeignModel",
    "ModelSource",
    "Preprocessing",
    "answer_warnings",
    "load_model",
    "parse_preprocessing",
]
