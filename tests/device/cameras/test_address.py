import contextlib

import pytest

from device.cameras.address import check_url, is_camera_url
from device.cameras.base import CameraError
from device.cameras.factory import open_camera
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
        ("folder:/home/pi/user_7/monkeys", "folder:/home/pi/user_7/monkeys"),
        ("/dev/v4l/by-id/usb-046d_HD_Pro", "/dev/v4l/by-id/usb-046d_HD_Pro"),
        ("mqtt:porch/user_7/jpg", "mqtt:porch/user_7/jpg"),
    ],
)
def test_addresses_are_shown_without_secrets(url, shown):
    """User, password and unknown query values are hidden; what identifies cameras is not."""
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("rtsp://admin:my secret@cam/s", "rtsp://***@cam/s"),
        ("rtsp:/admin:secret@cam/s", "rtsp:/***@cam/s"),
        ("rtsp//admin:secret@cam/s", "***@cam/s"),
        ("rtsp+tcp://admin:secret@cam/s", "rtsp+tcp://***@cam/s"),
        ("http:admin:secret@cam/x", "http:***@cam/x"),
        ("admin:secret@cam/s", "***@cam/s"),
        ("usb:rtsp:/admin:secret@cam", "usb:rtsp:/***@cam"),
        ("usb:admin:secret@cam", "usb:***@cam"),
        ("onvif:admin:secret@cam", "onvif:***@cam"),
        ("mqtt:/u:secret@cam/topic", "mqtt:/***@cam/topic"),
        ("rtsp://cam/admin:secret/stream", "rtsp://cam/***/stream"),
        ("rtsp://cam:554/user_admin_password_secret_ch1", "rtsp://cam:554/user_***"),
        (
            "http://cam/snap.cgi/loginuse=admin&loginpas=secret",
            "http://cam/snap.cgi/loginuse=***&loginpas=***",
        ),
        ("http:/cam/snap?usr=admin&code=secret", "http:/cam/snap?usr=***&code=***"),
        ("folder:/x?token=secret", "folder:/x?token=***"),
    ],
)
def test_a_slightly_wrong_specification_is_shown_without_secrets(spec, shown):
    """A user makes such a mistake once, and the error with it is what is pasted into a chat."""
    assert without_secrets(spec) == shown
    with contextlib.suppress(CameraError):
        open_camera(spec)
        return
    with pytest.raises(CameraError) as refusal:
        open_camera(spec)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "url", ["http://", "http://:80/x", "rtsp://cam:x/", "http://u:p#w@cam/", "http://[::1/x"]
)
def test_an_address_without_a_host_is_one_sentence(url):
    """The error shows how to write special characters, and not the password."""
    with pytest.raises(CameraError, match=r"has no valid host and port; write .* as %2F") as refusal:
        check_url(url)
    assert "p#w" not in str(refusal.value)


def test_schemes_are_recognised_in_any_case():
    """URLs of network cameras are specifications without a prefix."""
    for url in ("http://cam", "HTTPS://cam", "rtsp://cam", "RTSPS://cam", "rtmp://cam"):
        assert is_camera_url(url)
        check_url(url + "/x?y=z#f")
    for text in ("folder:/x", "ftp://cam", "http:/cam", "://cam"):
        assert not is_camera_url(text)
