"""Rules of console/access/sessions.py that need no browser."""

from bus.outbox.sqlite import Database
from console.access import sessions
from console.access.login import Identified
from console.access.sessions import Sessions

ADA = Identified("ada", "operator", "address")


async def test_a_disk_that_fails_locks_nobody_out(tmp_path, monkeypatch):
    """Logged-in people continue, since the pages show what is wrong; an ended session stays ended."""
    monkeypatch.setattr(sessions, "_WRITE_EVERY_S", -1.0)
    async with Database(tmp_path / "console.db", {"session": Sessions.MIGRATIONS}) as database:
        known = Sessions(database, idle_s=3600.0)
        cookie = await known.begin(ADA)
        for change in ("UPDATE", "DELETE"):
            fail = f"CREATE TRIGGER t{change} BEFORE {change} ON session BEGIN SELECT RAISE(ABORT, ''); END"
            await database.run(lambda connection, fail=fail: connection.execute(fail) and None)
        found = await known.find(cookie)
        assert found is not None
        assert found.person == ADA
        known._idle_s = -1.0
        assert await known.find(cookie) is None
        assert await known.find(cookie) is None
