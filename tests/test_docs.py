from pathlib import Path

from cli.main import COMMANDS
from cli.reference import reference, topics

ROOT = Path(__file__).resolve().parent.parent


def test_the_reference_is_up_to_date():
    """docs/reference.md is generated, so a changed command, field or topic changes it."""
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == reference()


def test_the_readme_has_the_generated_topics():
    """The README's table of topics is the generated one."""
    assert topics() in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_command_is_documented():
    """Each command has a section in the reference."""
    text = reference()
    assert [name for name in COMMANDS if f"### `gleaner {name}`" not in text] == []
