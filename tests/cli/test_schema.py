from cli.main import main
from tests.conftest import ROOT


def test_what_is_published_is_what_the_code_says(called):
    """`--check` passes on the repository's own files."""
    done = called(
        "schema", "--out", ROOT / "schemas/v1", "--reference", ROOT / "docs/reference.md", "--check"
    )
    assert (done.code, done.out, done.err) == (0, "", "")


def test_check_names_the_file_that_differs_and_writes_nothing(called, tmp_path):
    """A changed, and then a missing file fail the check in one sentence."""
    assert main(["schema", "--out", str(tmp_path)]) == 0
    assert called("schema", "--out", tmp_path, "--check").code == 0
    changed = tmp_path / "photo.schema.json"
    for change in (lambda: changed.write_text("{}"), changed.unlink):
        change()
        done = called("schema", "--out", tmp_path, "--check")
        assert done.code == 1
        assert done.sentence.startswith(f"gleaner schema: {changed}: expected what `gleaner schema` writes")
    assert not changed.exists()
