"""The file of accounts: names, roles, and Argon2 hashes of passwords."""

import hashlib
import unicodedata
from functools import cache
from pathlib import Path

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from msgspec import Struct

from bus.files.atomic_file import write_atomic
from console.access.roles import Role
from schemas.errors import DECODE_ERRORS, PermanentError

MIN_PASSWORD_CHARS = 8
_MAX_PASSWORD_CHARS = 1024
_MAX_NAME_CHARS = 128

_hasher = PasswordHasher()


class Account(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user who may log in."""

    role: Role
    password: str

    @property
    def fingerprint(self) -> str:
        """Digest of the whole account, which is another one after each change, also to the same password."""
        return hashlib.sha256(f"{self.role}\n{self.password}".encode()).hexdigest()


class Accounts:
    """The accounts of a console; read again whenever the file changes.

    Args:
        path: The file, in JSON; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at: tuple[int, int] | None = None
        self._accounts: dict[str, Account] = {}
        _nobody()  # now: the first name that does not exist would take twice the time of one that does

    def all(self) -> dict[str, Account]:
        """Return the accounts by name.

        Raises:
            PermanentError: The file cannot be read, or has another format.
        """
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return {}
        if self._read_at != (stat.st_mtime_ns, stat.st_ino):
            try:
                self._accounts = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Account])
            except (OSError, *DECODE_ERRORS) as error:
                raise PermanentError(f"cannot read the accounts in {self._path}: {error}") from None
            self._read_at = (stat.st_mtime_ns, stat.st_ino)
        return self._accounts

    def put(self, name: str, role: Role, password: str | None) -> None:
        """Add a user, or change role or password; blocks for a fraction of a second.

        Args:
            name: As in labels: 1 to 128 visible characters.
            role: What the person may do.
            password: The new one; None keeps the present one.

        Raises:
            PermanentError: Name or password cannot be used, or a new person has none.
        """
        name = person_name(name)
        accounts = dict(self.all())
        if password is None:
            if name not in accounts:
                raise PermanentError(f"there is no account {name!r}", hint="give it a password")
            hashed = accounts[name].password
        else:
            if not MIN_PASSWORD_CHARS <= len(password) <= _MAX_PASSWORD_CHARS:
                raise PermanentError(f"a password needs at least {MIN_PASSWORD_CHARS} characters")
            hashed = _hasher.hash(password)
        self._write(accounts | {name: Account(role=role, password=hashed)})

    def remove(self, name: str) -> None:
        """Remove a user.

        Raises:
            PermanentError: The account does not exist.
        """
        accounts = dict(self.all())
        if accounts.pop(name, None) is None:
            raise PermanentError(f"there is no account {name!r} in {self._path}")
        self._write(accounts)

    def verify(self, name: str, password: str) -> Account | None:
        """Return the account of a name and its password, else None; blocks for a fraction of a second."""
        account = self.all().get(name)
        try:
            _hasher.verify(_nobody() if account is None else account.password, password[:_MAX_PASSWORD_CHARS])
        except (VerificationError, InvalidHashError):
            return None
        return account

    def _write(self, accounts: dict[str, Account]) -> None:
        text = msgspec.json.format(msgspec.json.encode(accounts), indent=2) + b"\n"
        write_atomic(self._path, text, mode=0o600)


@cache
def _nobody() -> str:
    """Return the hash of no account: a name that does not exist must take the time of one that does."""
    return _hasher.hash("nobody")


def person_name(text: str) -> str:
    """Return a user's name in composed form.

    Raises:
        PermanentError: It is empty, too long, or has invisible characters.
    """
    name = unicodedata.normalize("NFC", text.strip())
    if not 0 < len(name) <= _MAX_NAME_CHARS or not name.isprintable():
        raise PermanentError(
            f"a person's name has 1 to {_MAX_NAME_CHARS} visible characters, got {text!a:.80}"
        )
    return name
