"""Backbone networks by name."""

from cloud.modeling.backbones.base import (
    CHANNELS,
    Backbone,
    BackboneUnavailableError,
    preprocess,
    weights_digest,
)
from cloud.modeling.backbones.efficientnet_lite import EFFICIENTNET_LITE0
from cloud.modeling.backbones.xception import XCEPTION
from cloud.modeling.backbones.xception_small import XCEPTION_SMALL

__all__ = [
    "BACKBONES",
    "CHANNELS",
    "EFFICIENTNET_LITE0",
    "XCEPTION",
    "XCEPTION_SMALL",
    "Backbone",
    "BackboneUnavailableError",
    "get_backbone",
    "preprocess",
    "weights_digest",
]

BACKBONES = {backbone.name: backbone for backbone in (XCEPTION, XCEPTION_SMALL, EFFICIENTNET_LITE0)}


def get_backbone(name: str) -> Backbone:
    """Return the backbone of that name.

    Raises:
        BackboneUnavailableError: no backbone has that name.
    """
    if name not in BACKBONES:
        raise BackboneUnavailableError("backbone", expected=f"one of {', '.join(BACKBONES)}", got=repr(name))
    return BACKBONES[name]
