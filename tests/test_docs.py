import re
from pathlib import Path

from cli.main import COMMANDS
from cli.reference import reference, topics
from tests.conftest import ROOT

PACKAGES = "bus|cloud|console|edge|device|cli|schemas|tests|bench|demo|deploy|docs"
PATH = re.compile(rf"`((?:{PACKAGES})/[\w/.-]+)`")
LINK = re.compile(r"\]\(([^)\s]*)\)")
# No package index has Gleaner, and `gleaner` there is another project: install a wheel or a checkout.
INDEX_INSTALL = re.compile(
    r"gleaner-aiot\[|(?:pip|pipx|tool) install (?:-\S+ )*['\"]?gleaner(?:-aiot)?(?![\w./-])"
)
# Records of why something was changed, and measurements, may name what is no longer there.
HISTORY = {"docs/decisions", "docs/experiments.md", "CHANGELOG.md"}


def documents() -> dict[str, str]:
    """Return the text of each Markdown file of the repository, by its path."""
    folders = (
        ROOT,
        *(
            ROOT / name
            for name in ("docs", "docs/decisions", "examples", "deploy/kubeedge", "deploy/kubeedge/lab")
        ),
    )
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for folder in folders
        for path in sorted(folder.glob("*.md"))
    }


def slug(heading: str) -> str:
    """Return the anchor that a Markdown viewer gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


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


def test_paths_in_the_documents_exist():
    """A file that a document names exists, so that a reader finds it."""
    missing = [
        f"{name}: {path}"
        for name, text in documents().items()
        if not any(name.startswith(history) for history in HISTORY)
        for path in PATH.findall(text)
        if not (ROOT / path).exists()
    ]
    assert missing == []


def test_links_in_the_documents_lead_somewhere():
    """A relative link leads to an existing file, and to an existing heading where it names one."""
    broken = [
        f"{name}: {link}"
        for name, text in documents().items()
        for link in LINK.findall(text)
        if not link.startswith(("http:", "https:", "mailto:")) and not leads_somewhere(ROOT / name, link)
    ]
    assert broken == []


def leads_somewhere(document: Path, link: str) -> bool:
    """Return True if a relative link of a document has a target."""
    path, _, anchor = link.partition("#")
    target = document.parent / path if path else document
    if not anchor:
        return target.exists()
    headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
    return anchor in map(slug, headings)


def test_nothing_installs_gleaner_from_an_index():
    """Whoever publishes a package of that name on an index would be installed: name the wheel."""
    texts = documents() | {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for package in PACKAGES.split("|")
        if package != "tests"
        for path in (ROOT / package).rglob("*.py")
    }
    found = [
        f"{name}: {match.group()}"
        for name, text in texts.items()
        if not any(name.startswith(history) for history in HISTORY)
        for match in INDEX_INSTALL.finditer(text.replace("**Do not `pip install gleaner`", ""))
    ]
    assert found == []
