import pytest

from device.cameras.address import check_url, is_camera_url
from device.cameras.base import CameraError
from schemas.text import without_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://cam/video", "http://cam/video"),
        ("http://cam/video?channel=1&subtype=0#x", "http://cam/video?channel=1&subtype=***"),
        ("http://cam/video?channel=1&subtype=0", "http://cam/video?channel=1&subtype=0"),
        ("rtsp://admin:pw@cam:554/Streaming/1", "rtsp://***@cam:554/Streaming/1"),
        ("rtsp://admin:p@w/d#?@cam:554/x", "rtsp://***@cam:554/x"),
        ("rtsp://admin@cam/x", "rtsp://***@cam/x"),
        (
            "http://cam/api.cgi?cmd=Snap&user=admin&password=pw",
            "http://cam/api.cgi?cmd=Snap&user=***&password=***",
        ),
        ("http://cam/a?channel=p%40ss&pw", "http://cam/a?channel=***&***"),
        ("rtsp://cam/user=admin_password=pw_channel=1.sdp", "rtsp://cam/user=***"),
        ("usb:http://a:b@cam/?q", "usb:http://***@cam/?***"),
        ("folder:/home/pi/photos?loop=1&shuffle=7", "folder:/home/pi/photos?loop=1&shuffle=7"),
    ],
)
def test_addresses_are_shown_without_secrets(url, shown):
    """User, password and unknown query values are hidden; what tells cameras apart is not."""
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    "url", ["http://", "http://:80/x", "rtsp://cam:x/", "http://u:p#w@cam/", "http://[::1/x"]
)
def test_an_address_without_a_host_is_one_sentence(url):
    """The error shows how to write special characters, and not the password."""
    with pytest.raises(CameraError, match=r"has no valid host and port; write .* as %2F") as refusal:
        check_url(url)
    assert "p#w" not in str(refusal.value)


def test_schemes_are_recognised_in_any_case():
    """URLs of network cameras are specifications by themselves."""
    for url in ("http://cam", "HTTPS://cam", "rtsp://cam", "RTSPS://cam", "rtmp://cam"):
        assert is_camera_url(url)
        check_url(url + "/x?y=z#f")
    for text in ("folder:/x", "ftp://cam", "http:/cam", "://cam"):
        assert not is_camera_url(text)
