"""Rules of the audit trail: everything that people change is in it, and operators find it in the page."""

from http import HTTPStatus

import pytest

from console.access.account_changes import Seen, changes
from console.access.accounts import Accounts
from console.access.roles import Visitor
from console.pages.audit import PER_PAGE
from tests.console.access.test_access import PASSWORD, Client, with_accounts
from tests.console.conftest import watched
from tests.console.test_pages import violations
from tests.console.test_review import expect

HOSTILE = '<script>alert(1)</script>\u202e%_"\\'


@pytest.fixture(scope="module")
def console(tmp_path_factory, mosquitto):
    """A console with accounts."""
    with with_accounts(tmp_path_factory.mktemp("audit"), mosquitto, undo_s=600) as running:
        yield running


def record(console, person, action, **facts):
    console.call(console.shown.audit.record_as(person, "127.0.0.1", action, **facts))


def found(console, **filters):
    return console.call(console.shown.audit.find(limit=100, **filters))


def test_entries_are_found_by_what_was_done_by_whom_and_about_what(console):
    """Exactly the action, a part of a name or of the details in any case; signs of patterns are text."""
    record(console, "Ada", "label.given", label="grey_cat", photos=["a" * 32])
    record(console, "ben", "policy.set", node="edge-7", changes={"auto": ["on", ""]})
    record(console, HOSTILE, "label.given", label=HOSTILE, photos=["b" * 32])
    assert {one.person for one in found(console, action="label.given")} == {"Ada", HOSTILE}
    assert [one.action for one in found(console, person="ADA")] == ["label.given"]
    assert [one.person for one in found(console, about="EDGE-7")] == ["ben"]
    assert [one.person for one in found(console, about="y_c")] == ["Ada"]
    assert [one.person for one in found(console, about="%")] == [HOSTILE]
    assert [one.person for one in found(console, about='"\\')] == [HOSTILE]
    assert found(console, about="nothing like it") == []


def test_a_page_begins_where_the_one_before_it_ended(console):
    """Also while entries are added: none is shown twice or left out."""
    numbers = [one.seq for one in found(console)]
    first = console.call(console.shown.audit.find(limit=2))
    record(console, "carla", "logout")
    second = console.call(console.shown.audit.find(limit=100, before=first[-1].seq))
    assert [one.seq for one in (*first, *second)] == numbers


def test_changes_of_accounts_are_recorded_whoever_made_them(console):
    """The command runs elsewhere: the console finds the difference, also one from while it was stopped."""
    accounts = Accounts(console.folder / "accounts.json")
    accounts.put("dora", "viewer", "long enough")
    console.wait_until(lambda: any("dora" in one.facts for one in found(console, action="account.added")))
    accounts.put("dora", "operator", None)
    accounts.remove("dora")
    console.wait_until(lambda: any("dora" in one.facts for one in found(console, action="account.removed")))


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({}, {"a": Seen("viewer", "1")}, [("account.added", {"account": "a", "role": "viewer"})]),
        ({"a": Seen("viewer", "1")}, {}, [("account.removed", {"account": "a"})]),
        ({"a": Seen("viewer", "1")}, {"a": Seen("viewer", "1")}, []),
        (
            {"a": Seen("viewer", "1")},
            {"a": Seen("operator", "2")},
            [("account.role_changed", {"account": "a", "role": "operator"})],
        ),
        (
            {"a": Seen("viewer", "1")},
            {"a": Seen("viewer", "2")},
            [("account.password_changed", {"account": "a"})],
        ),
    ],
)
def test_each_difference_of_the_accounts_has_an_action(before, now, expected):
    """Passwords are compared by their fingerprint."""
    assert list(changes(before, now)) == expected


def test_what_is_taken_back_is_named_by_its_photos(console):
    """As the label was; an attempt that came too late changes nothing and is not recorded."""
    desk, ada = console.shown.desk, Visitor("Ada", "reviewer", "session")
    photo = console.call(desk.next_photos(ada, 1))[0].photo_id
    given = console.call(desk.label(ada, "127.0.0.1", [photo], "owl"))
    assert console.call(desk.take_back(ada, "127.0.0.1", given)) == [photo]
    assert console.call(desk.take_back(ada, "127.0.0.1", given)) == []
    assert [one.facts for one in found(console, action="label.taken_back")] == [
        f'{{"label":"owl","photos":["{photo}"]}}'
    ]


def test_an_operator_finds_who_did_what(console, browser):
    """Filtered and page by page; names and labels of strangers are text, and nothing in them runs."""
    record(console, "finn", "rollout.ordered", ordered="pause", version=3, reason="")
    for number in range(PER_PAGE + 3):
        record(console, "erik", "label.given", label=f"class {number}", photos=["c" * 32] * 9)
    record(console, HOSTILE, "label.given", label=HOSTILE, photos=["d" * 32])
    context = browser.new_context(base_url=console.url, locale="en-GB")
    with watched(context.new_page()) as page:
        page.goto("/login")
        assert violations(page) == []
        page.get_by_label("Name").fill("a operator")
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_have_text("Name or password is wrong.")
        assert violations(page) == []
        page.get_by_label("Name").fill("a operator")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.goto("/audit")
        entries = page.locator(".timeline li")
        expect(entries).to_have_count(PER_PAGE)
        assert violations(page) == []
        expect(entries.nth(2)).to_contain_text("<script>alert(1)</script>")
        page.get_by_label("Person").fill("finn")
        expect(entries).to_have_count(1)
        expect(entries).to_contain_text("Pause")
        expect(entries).not_to_contain_text("Reason")
        page.get_by_label("Person").fill("erik")
        expect(entries.first).to_contain_text(f"class {PER_PAGE + 2}")
        page.get_by_role("link", name="Older").click()
        expect(entries).to_have_count(3)
        expect(page.get_by_label("Person")).to_have_value("erik")
        page.get_by_label("Photo, label or node").fill("class 17")
        expect(entries).to_have_count(1)
        page.get_by_label("Action").select_option("login.failed")
        expect(page.locator(".empty")).to_have_text("No entry matches these filters.")
    context.close()


@pytest.mark.parametrize(
    "query", ["before=-1", "before=x", "before=" + "9" * 40, "before=%D9%A3", "action=%00"]
)
def test_a_strange_address_is_answered(console, query):
    """As if the strange part were not there, or with nothing found."""
    client = Client(console)
    client.log_in("a operator")
    assert client.ask("GET", f"/audit?{query}")[0] == HTTPStatus.OK
