"""How users log in: by a one-time address, by an account, or through a reverse proxy that names them."""

import asyncio
import contextlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from pathlib import Path

import structlog

from bus.files.atomic_file import write_atomic
from console.access.accounts import Accounts, person_name
from console.access.login_backoff import LoginBackoff
from console.access.roles import ROLES, Role
from console.config import Proxy
from schemas.errors import PermanentError

log = structlog.get_logger()

_BY_ADDRESS, _BY_PROXY = "address", "proxy"

ADDRESS_FILE = "address"
"""File in the state folder with the present one-time address."""


@dataclass(frozen=True, slots=True)
class Identified:
    """An authenticated user.

    Args:
        name: As in labels.
        role: What the person may do.
        proof: How they proved who they are; `Login.believes` checks whether that still holds.
    """

    name: str
    role: Role
    proof: str


class Login:
    """The ways to log in that a configuration allows.

    Args:
        accounts: The accounts; None: one-time addresses, unless a proxy is configured.
        proxy: A proxy that names users, or None.
        address_file: Where the one-time address is written, for its owner alone.
        person: Name of who opens a one-time address.
    """

    def __init__(
        self, *, accounts: Accounts | None, proxy: Proxy | None, address_file: Path, person: str
    ) -> None:
        self.accounts = accounts
        self.backoff = LoginBackoff()
        self._proxy = proxy
        self._proxies = [] if proxy is None else [ipaddress.ip_address(one) for one in proxy.addresses]
        self._address_file = address_file
        self._person = person
        self._token = ""
        self._url = ""

    @property
    def by_address(self) -> bool:
        """Whether people log in by opening a one-time address."""
        return self.accounts is None and self._proxy is None

    @property
    def behind_proxy(self) -> bool:
        """Whether a reverse proxy names people."""
        return self._proxy is not None

    def new_address(self, url: str | None = None) -> str:
        """Make the next one-time address, write it to its file, and return it.

        Args:
            url: Of the console, without a path; None: as before.
        """
        self._url = url or self._url
        self._token = secrets.token_urlsafe(24)
        address = f"{self._url}/?token={self._token}"
        write_atomic(self._address_file, f"{address}\n".encode(), mode=0o600)
        return address

    def by_token(self, token: str) -> Identified | None:
        """Return the person of a one-time address, which is used up by that."""
        if not (
            self.by_address and self._token and hmac.compare_digest(token.encode(), self._token.encode())
        ):
            return None
        # The next one waits in the file, for another browser.
        self.new_address()
        return Identified(self._person, "operator", _BY_ADDRESS)

    async def by_password(self, name: str, password: str, client: str) -> Identified | float | None:
        """Return the person of a name and a password.

        Args:
            name: As typed.
            password: As typed.
            client: Address that the attempt comes from.

        Returns:
            None for a wrong name or password; seconds to wait after too many of them.
        """
        keys = [f"client {client}"]
        with contextlib.suppress(PermanentError):  # a name that nobody can have counts for its address
            name = person_name(name)
            keys.append(f"name {name}")
        if wait_s := self.backoff.wait_s(*keys):
            return wait_s
        # Counted before the hash is computed: attempts at the same time must not all be free.
        self.backoff.failed(*keys)
        if self.accounts is None or len(keys) == 1:
            return None
        account = await asyncio.to_thread(self.accounts.verify, name, password)
        if account is None:
            return None
        self.backoff.succeeded(*keys)
        return Identified(name, account.role, account.fingerprint)

    def by_proxy(self, client: str | None, headers: dict[str, str]) -> Identified | None:
        """Return the person that a trusted proxy names in lower-case headers."""
        if self._proxy is None or client is None or not self._is_trusted(client):
            return None
        try:
            name = person_name(headers.get(self._proxy.user_header.lower(), ""))
        except PermanentError:
            return None
        role = headers.get(self._proxy.role_header.lower(), "")
        return Identified(name, role if role in ROLES else "viewer", _BY_PROXY)

    def believes(self, person: Identified) -> bool:
        """Return whether a person who logged in earlier, maybe at an earlier run, would be let in now too.

        Of a person whom a proxy names, this says only that there is a proxy: it names them with each request.

        Raises:
            PermanentError: The accounts cannot be read.
        """
        if self._proxy is not None:
            return person.proof == _BY_PROXY
        if self.accounts is None:
            return person.proof == _BY_ADDRESS
        account = self.accounts.all().get(person.name)
        return account is not None and account.fingerprint == person.proof

    def _is_trusted(self, client: str) -> bool:
        try:
            return ipaddress.ip_address(client) in self._proxies
        except ValueError:
            return False
