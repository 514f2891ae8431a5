from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.files.file_url import path_of
from schemas.errors import PermanentError

names = st.binary(min_size=1, max_size=40).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))


@given(st.lists(names.filter(lambda name: name not in {b".", b".."}), min_size=1, max_size=3))
def test_the_path_of_a_url_is_the_path_it_was_made_of(parts):
    """`path_of` reads back a name of any bytes."""
    path = Path("/", *(part.decode("utf-8", "surrogateescape") for part in parts))
    assert path_of(path.as_uri()) == path


def test_other_spellings_of_a_file_url():
    """An unquoted space, `localhost` and a single slash are read too."""
    assert path_of("file:///a b") == path_of("file://localhost/a%20b") == path_of("file:/a b") == Path("/a b")
    assert path_of("file://LOCALHOST/a%0Ab") == Path("/a\nb")


@pytest.mark.parametrize(
    "url",
    [
        "file://host/a",
        "file:a",
        "http:///a",
        "/a",
        "file:///a?b",
        "file:///a#b",
        "file:///%00",
        "file:///a\nb",
        "file:///a\tb",
        "file:///a\x7f",
    ],
)
def test_what_names_no_path_here_is_an_error(url):
    """The error shows how to write such a URL."""
    with pytest.raises(PermanentError, match="file:// and an absolute path"):
        path_of(url)
