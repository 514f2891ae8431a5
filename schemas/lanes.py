"""Harvest lanes: why a photo was harvested, which decides whose label is used in training."""

from typing import Final, Literal, get_args

Lane = Literal["auto", "hard", "audit", "feedback"]

AUTO: Final = "auto"
"""The model was confident; its own label is used where the teacher agrees."""
HARD: Final = "hard"
"""The model was uncertain; a teacher or a person labels the photo."""
AUDIT: Final = "audit"
"""Drawn at random, independently of the model; a person labels it, for an unbiased accuracy."""
FEEDBACK: Final = "feedback"
"""A person sent a label for it."""

LANES: Final[tuple[Lane, ...]] = get_args(Lane)
SCORED_LANES: Final[tuple[Lane, ...]] = (AUTO, HARD)
"""Lanes chosen by the model's scores; only these have quotas per class."""
