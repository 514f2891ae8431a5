"""What a release of another head costs: the default network with all variants, counted at the connection."""

import asyncio
import hashlib
from pathlib import Path

import msgspec
import pytest

from edge.models import version_dirs
from edge.models.transfer.bundle_source import Traffic
from schemas.litert import EXTRA_ASSETS
from tests.file_server import FileServer, web_server
from tests.proxy import proxy_to

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*"),
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, make_example) -> Path:
    """Two versions that differ in their heads, packed as a training packs them."""
    import numpy as np  # noqa: PLC0415  # TensorFlow is loaded by what follows

    from cloud.export.saved_model import export_saved_model, pack  # noqa: PLC0415
    from cloud.export.serving_module import Model  # noqa: PLC0415
    from cloud.export.variants import INT8_FILES, Quantization  # noqa: PLC0415
    from cloud.modeling.backbones import get_backbone  # noqa: PLC0415
    from cloud.modeling.linear_head import Head  # noqa: PLC0415
    from cloud.modeling.novelty import fit_novelty  # noqa: PLC0415

    folder, draw, backbone = (
        tmp_path_factory.mktemp("shop"),
        np.random.default_rng(0),
        get_backbone("efficientnet-lite0"),
    )
    network, quantized = backbone.build(), None
    photos = [make_example(label, seed).image for label in ("dawn", "dusk") for seed in range(4)]
    novelty = fit_novelty(draw.uniform(size=(200, backbone.embedding_dim)))
    for version in (1, 2):
        head = Head(draw.normal(size=(backbone.embedding_dim, 2)), np.zeros(2))
        model = Model(backbone, network, head, 1.0 + version, ("cat", "dog"), novelty)
        quantization, path = Quantization(photos, quantized), folder / str(version)
        with export_saved_model(model, path, tflite=True, quantization=quantization) as unfinished:
            pack(unfinished, folder / f"{version}.tar")
        quantized = (path / EXTRA_ASSETS / INT8_FILES[0]).read_bytes()
    return folder


async def test_a_release_of_another_head_moves_at_most_100_kb(shop, tmp_path):
    """All variants included, with requests and headers: 100 kB of a bundle of 35 MB."""
    from tests.serving import release_of  # noqa: PLC0415

    server, base, costs = FileServer(shop), tmp_path / "pets", []
    async with web_server(server.answer) as address, proxy_to(int(address.rpartition(":")[2])) as proxy:
        for version in (1, 2):
            parts = hashlib.sha256((shop / f"{version}.tar.parts.parts").read_bytes()).hexdigest()
            url = f"http://127.0.0.1:{proxy.port}/{version}.tar"
            release = msgspec.structs.replace(
                release_of(shop / f"{version}.tar", version), parts=parts, url=url
            )
            before, traffic = proxy.forwarded_bytes, Traffic()
            await asyncio.to_thread(version_dirs.download, release, base, traffic=traffic)
            costs.append(proxy.forwarded_bytes - before)
            assert release.size_bytes > 30_000_000
            version_dirs.activate(version, base, unproven_sha256=None)
    assert costs[1] <= 100_000, costs
    for path in (shop / "2").rglob("*"):
        assert path.is_dir() or (base / "2" / path.relative_to(shop / "2")).read_bytes() == path.read_bytes()
