from cli.main import main
from tests.conftest import ROOT


def test_the_published_contract_is_up_to_date(called):
    """`--check` passes on the files of the repository."""
    done = called(
        "schema", "--out", ROOT / "schemas/v1", "--reference", ROOT / "docs/reference.md", "--check"
    )
    assert (done.code, done.out, done.err) == (0, "", "")


def test_check_fails_on_an_outdated_file_and_writes_nothing(called, tmp_path):
    """A changed file and a missing one are errors that name the file."""
    assert main(["schema", "--out", str(tmp_path)]) == 0
    assert called("schema", "--out", tmp_path, "--check").code == 0
    changed = tmp_path / "photo.schema.json"
    for change in (lambda: changed.write_text("{}"), changed.unlink):
        change()
        done = called("schema", "--out", tmp_path, "--check")
        assert done.code == 1
        assert done.sentence.startswith(f"gleaner schema: {changed} is out of date; run")
    assert not changed.exists()
