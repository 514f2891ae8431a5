"""An RTSP server of GStreamer; run by the system's Python, which has Debian's GObject bindings.

Prints its port. Each frame of the stream is other noise. With a user and a password it asks for them.
Debian: sudo apt install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402  # after require_version

Gst.init(None)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service="0")
factory = GstRtspServer.RTSPMediaFactory()
factory.set_shared(True)  # the signature of GStreamer
factory.set_launch(
    "( videotestsrc is-live=true pattern=snow ! video/x-raw,format=I420,width=320,height=240,framerate=25/1"
    " ! jpegenc ! rtpjpegpay name=pay0 )"
)
if len(sys.argv) > 2:  # user and password
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "viewer")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*sys.argv[1:3]), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)  # noqa: FBT003  # as above
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)  # noqa: FBT003  # as above
    factory.set_permissions(permissions)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)  # noqa: T201  # a program
GLib.MainLoop().run()
