import re
import shlex
from pathlib import Path

from cli.main import COMMANDS, parser_of
from cli.reference import reference, topics
from edge.modelserver import flags as modelserver_flags
from tests.conftest import ROOT

PACKAGES = "bus|cloud|console|edge|device|cli|schemas|tests|bench|demo|deploy|docs"
PATH = re.compile(rf"`((?:{PACKAGES})/[\w/.-]+)`")
LINK = re.compile(r"\]\(([^)\s]*)\)")
# No package index has Gleaner, and `gleaner` there is another project: install a wheel or a checkout.
INDEX_INSTALL = re.compile(
    r"gleaner-aiot\[|(?:pip|pipx|tool) install (?:-\S+ )*['\"]?gleaner(?:-aiot)?(?![\w./-])"
)
_SHELL_BLOCK = re.compile(r"```(?:sh|bash)\n(.*?)```", re.DOTALL)
_CALL = re.compile(r"^\s*(?:sudo |[A-Z_]+=\S+ )*(?:\S*/)?gleaner ((?!-)\S.*)$")
_END_OF_CALL = re.compile(r"[|&;>].*")
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
    """A stranger's package of that name on an index would be installed: name the wheel."""
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


def calls() -> list[tuple[str, list[str]]]:
    """Return the calls of `gleaner` in the shell blocks of the documents: document and words."""
    return [
        (name, shlex.split(found.group(1).replace("$PWD", "/home"), comments=True))
        for name, text in documents().items()
        if not any(name.startswith(history) for history in HISTORY)
        for block in _SHELL_BLOCK.findall(text)
        for line in block.replace("\\\n", " ").splitlines()
        if (found := _CALL.match(line)) is not None
    ]


def test_commands_in_the_documents_have_existing_options(capsys):
    """A call that a document shows is understood; only the files that it names may be missing here."""
    wrong = []
    for name, words in calls():
        end = next((at for at, word in enumerate(words) if _END_OF_CALL.match(word)), len(words))
        try:
            if words[0] == "modelserver":
                modelserver_flags.parse(words[1:end])
            else:
                parser_of(words[0])[0].parse_args(words[1:end])
        except SystemExit as ended:
            said = capsys.readouterr().err
            if ended.code != 0 and "there is no file" not in said:
                wrong.append(f"{name}: {' '.join(words)}: {said.splitlines()[-1]}")
        except modelserver_flags.FlagError as error:
            if "No such file" not in str(error):
                wrong.append(f"{name}: {' '.join(words)}: {error}")
    assert len(calls()) > 40
    assert wrong == []
