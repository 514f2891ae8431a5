from pathlib import Path

import pytest
from msgspec import structs

from cloud.export.variants import INT8_FILES, RANGE_PHOTOS
from cloud.registry.registry import Champion
from cloud.training.packaging import quantized_before
from schemas.litert import EXTRA_ASSETS
from tests.cloud.bundles import card

MEASURED = {"cat": {"human": RANGE_PHOTOS // 2}, "dog": {"human": 5, "edge": RANGE_PHOTOS // 2 - 5}}


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"weights_digest": "1" * 32}, False),
        ({"backbone": "another"}, False),
        ({"decoding": 2}, False),
        ({"examples_used": {"cat": {"human": RANGE_PHOTOS - 1}}}, False),
    ],
)
def test_the_quantized_network_of_the_same_weights_is_kept(tmp_path: Path, changes, kept) -> None:
    """Only of the same network for the same pixels, and if its ranges were measured on enough photos."""
    (tmp_path / EXTRA_ASSETS).mkdir()
    (tmp_path / EXTRA_ASSETS / INT8_FILES[0]).write_bytes(b"network")
    before = structs.replace(card(1), **({"examples_used": MEASURED} | changes))
    assert quantized_before(Champion(tmp_path, before, {}), card(2)) == (b"network" if kept else None)


def test_a_champion_without_a_quantized_network_leaves_none(tmp_path: Path) -> None:
    """Without a champion, or if its variant was refused, the network is converted."""
    assert quantized_before(None, card(2)) is None
    assert (
        quantized_before(Champion(tmp_path, structs.replace(card(1), examples_used=MEASURED), {}), card(2))
        is None
    )
