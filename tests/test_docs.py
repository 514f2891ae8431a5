from pathlib import Path

from cli.main import COMMANDS
from cli.reference import reference, topics

ROOT = Path(__file__).resolve().parent.parent


def test_the_reference_is_what_the_code_says():
    """docs/reference.md is generated: a command, field or topic cannot change without it."""
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == reference()


def test_the_readme_has_the_real_topics():
    """The README's table of topics is the generated one."""
    assert topics() in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_command_is_documented():
    """Each command stands in the reference under its name."""
    text = reference()
    assert [name for name in COMMANDS if f"### `gleaner {name}`" not in text] == []
