"""Equal models give equal bytes, also after the process traced others."""

from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*"),
]


def test_equal_networks_give_equal_files(tmp_path: Path) -> None:
    """Versions with another head differ in the head's variables alone, also if other things were traced."""
    import numpy as np  # noqa: PLC0415  # TensorFlow is loaded by what follows
    import tensorflow as tf  # noqa: PLC0415

    from cloud.export.saved_model import export_saved_model  # noqa: PLC0415
    from cloud.export.serving_module import Model  # noqa: PLC0415
    from cloud.modeling.linear_head import Head  # noqa: PLC0415
    from cloud.modeling.novelty import fit_novelty  # noqa: PLC0415
    from tests.cloud.tiny import TINY  # noqa: PLC0415

    draw, network = np.random.default_rng(0), TINY.build()
    novelty = fit_novelty(draw.uniform(size=(20, TINY.embedding_dim)))
    for number in (1, 2):
        head = Head(draw.normal(size=(TINY.embedding_dim, 2)), np.zeros(2))
        model = Model(TINY, network, head, 1.0 + number, ("cat", "dog"), novelty)
        with export_saved_model(model, tmp_path / str(number)):
            pass
        tf.function(lambda x: tf.while_loop(lambda i: i < 3, lambda i: i + 1, [x])).get_concrete_function(0)
    names = {path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file()}
    assert Path("fingerprint.pb") not in names
    other = {
        name for name in names if (tmp_path / "1" / name).read_bytes() != (tmp_path / "2" / name).read_bytes()
    }
    assert other == {Path("variables/variables.data-00000-of-00001"), Path("variables/variables.index")}
