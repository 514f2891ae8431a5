import pytest

from tests.device.conftest import Edge


@pytest.fixture
async def edge(address):
    """An edge on the test's broker that classifies every photo."""
    async with Edge(address).running() as edge:
        yield edge
