"""Roles; each includes the rights of the ones before it."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Literal, NamedTuple, TypeAlias, cast, get_args

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

Role: TypeAlias = Literal["viewer", "reviewer", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)
"""viewer: looks; reviewer: also labels; operator: also changes what the system does."""

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


class Visitor(NamedTuple):
    """The person behind a request.

    Args:
        name: As in labels and the audit trail.
        role: What the person may do.
        session: Id of the session, which distinguishes two browsers of one person.
    """

    name: str
    role: Role
    session: str

    def may(self, role: Role) -> bool:
        """Return whether the person has a role, or one above it."""
        return ROLES.index(self.role) >= ROLES.index(role)


def visitor(request: Request) -> Visitor:
    """Return the person behind a request that the guard let through."""
    return cast("Visitor", request.scope["state"]["visitor"])


def requires(role: Role) -> Callable[[Endpoint], Endpoint]:
    """Refuse an endpoint to people below a role, with 403."""

    def wrap(endpoint: Endpoint) -> Endpoint:
        @wraps(endpoint)
        async def checked(request: Request) -> Response:
            if not visitor(request).may(role):
                raise HTTPException(403, f"this needs the role {role}")
            return await endpoint(request)

        return checked

    return wrap
