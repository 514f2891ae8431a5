"""Losses as TensorBoard reads them."""

from pathlib import Path

import pytest
import tensorflow as tf

from cloud.reporting.loss_curves import LossCurves

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")


def scalars(folder: Path) -> list[tuple[int, float, str]]:
    """Return step, value and plug-in of all events in a folder."""
    [file] = folder.glob("events.out.tfevents.*")
    found = []
    for record in tf.data.TFRecordDataset(str(file)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            plugin = value.metadata.plugin_data.plugin_name
            found.append((event.step, float(tf.make_ndarray(value.tensor)), f"{value.tag} {plugin}"))
    return found


def test_losses_are_kept_and_written(tmp_path: Path) -> None:
    """A folder per training, with a scalar `loss` by step."""
    with LossCurves(tmp_path / "7") as curves:
        first, second = curves.new_name(), curves.new_name()
        curves.add(first, 10, 0.5)
        curves.add(first, 20, 0.25)
        curves.add(second, 10, 2.0)
    assert dict(curves.losses) == {"fit-1": [(10, 0.5), (20, 0.25)], "fit-2": [(10, 2.0)]}
    assert scalars(tmp_path / "7/fit-1") == [(10, 0.5, "loss scalars"), (20, 0.25, "loss scalars")]
    assert scalars(tmp_path / "7/fit-2") == [(10, 2.0, "loss scalars")]


def test_nothing_is_written_without_losses(tmp_path: Path) -> None:
    """A frozen backbone leaves no folder, and without a folder nothing is written."""
    with LossCurves(tmp_path / "7") as curves:
        curves.new_name()
    with LossCurves() as curves:
        curves.add("fit-1", 10, 0.5)
    assert not list(tmp_path.iterdir())
