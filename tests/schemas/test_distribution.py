import pytest

from schemas.distribution import _install_from, install_command, version

WHEEL = f"gleaner_aiot-{version()}-py3-none-any.whl"


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (
            '{"url": "file:///home/ada/my%20wheels/gleaner.whl", "archive_info": {}}',
            "pip install '/home/ada/my wheels/gleaner.whl[usb]'",
        ),
        (
            '{"url": "file:///home/ada/gleaner", "dir_info": {"editable": true}}',
            "pip install --editable '/home/ada/gleaner[usb]'",
        ),
        (
            '{"url": "https://example.org/gleaner.whl", "archive_info": {}}',
            "pip install 'https://example.org/gleaner.whl[usb]'",
        ),
        (None, f"pip install '{WHEEL}[usb]'"),
    ],
)
def test_an_extra_comes_from_where_gleaner_came_from(origin, command):
    """The command names the checkout or the wheel; without a record (PEP 610) the wheel of this version."""
    assert _install_from(origin, "usb") == command


def test_this_installation_has_an_origin_and_no_index():
    """No index has Gleaner, so its name alone would install what somebody else published."""
    assert "gleaner-aiot[" not in install_command("usb")
