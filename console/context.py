"""What the pages of one console share."""

from dataclasses import dataclass, field
from typing import cast

from starlette.requests import Request

from bus.mqtt.client import Bus
from cloud.dataset.store import Store
from cloud.labeling.similarity import SimilarPhotos
from cloud.registry.registry import Registry
from console.access.audit_trail import AuditTrail
from console.access.login import Login
from console.access.sessions import Sessions
from console.analysis.insights import InsightDesk
from console.config import ConsoleConfig
from console.live.broadcast import Broadcast
from console.live.photo_previews import PhotoPreviews
from console.live.state import LiveState
from console.photos.picture_cache import PictureCache
from console.review.desk import ReviewDesk


@dataclass(frozen=True, kw_only=True)
class Console:
    """Everything that an endpoint may use.

    Args:
        config: The configuration.
        bus: The connection to the broker.
        live: Messages of the broker.
        previews: Small pictures of photos that passed by at the broker.
        broadcast: Notifies open pages of changes.
        store: The dataset; its methods block: call them with `asyncio.to_thread`.
        registry: The models folder; it blocks too.
        pictures: Thumbnails.
        desk: Photos to label, and the labels that were given.
        sessions: People who are logged in.
        login: How people log in.
        audit: Who did what.
        insights: The learning curve and doubtful labels.
        similar: Photos that look like one.
        password: Of the broker's user, for further connections.
    """

    config: ConsoleConfig
    bus: Bus
    live: LiveState
    previews: PhotoPreviews
    broadcast: Broadcast
    store: Store
    registry: Registry
    pictures: PictureCache
    desk: ReviewDesk
    sessions: Sessions
    login: Login
    audit: AuditTrail
    insights: InsightDesk
    similar: SimilarPhotos
    password: str | None = field(default=None, repr=False)


def console_of(request: Request) -> Console:
    """Return the console that serves a request."""
    return cast("Console", request.app.state.console)
