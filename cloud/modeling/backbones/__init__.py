"""Backbone networks by name."""

from cloud.modeling.backbone_names import BackboneUnavailableError, check_backbone_name
from cloud.modeling.backbones.base import Backbone, preprocess, weights_digest
from cloud.modeling.backbones.compact import COMPACT
from cloud.modeling.backbones.custom import load_custom
from cloud.modeling.backbones.efficientnet_lite import (
    EFFICIENTNET_LITE0,
    EFFICIENTNET_LITE0_GRID,
    EFFICIENTNET_LITE1,
    EFFICIENTNET_LITE2,
)
from cloud.modeling.backbones.xception import XCEPTION
from cloud.modeling.backbones.xception_small import XCEPTION_SMALL

__all__ = [
    "BACKBONES",
    "COMPACT",
    "EFFICIENTNET_LITE0",
    "EFFICIENTNET_LITE0_GRID",
    "XCEPTION",
    "XCEPTION_SMALL",
    "Backbone",
    "BackboneUnavailableError",
    "get_backbone",
    "preprocess",
    "weights_digest",
]

BACKBONES = {
    backbone.name: backbone
    for backbone in (
        XCEPTION,
        XCEPTION_SMALL,
        COMPACT,
        EFFICIENTNET_LITE0,
        EFFICIENTNET_LITE0_GRID,
        EFFICIENTNET_LITE1,
        EFFICIENTNET_LITE2,
    )
}


def get_backbone(name: str) -> Backbone:
    """Return a backbone.

    Args:
        name: of one of ours; or `FILE.keras[:PREPROCESSING]` or `MODULE:NAME[:PREPROCESSING]` for others.

    Raises:
        BackboneUnavailableError: no backbone has that name.
        AdoptionError: the file or object cannot be used as one.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    check_backbone_name(name)
    return load_custom(name)
