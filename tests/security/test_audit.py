"""The audit of dependencies: a finding fails it, and what was not looked up is said."""

import json
import sys

import pytest
from tests.helpers.workers import ROOT
from tests.security.audit import main


def reports(tmp_path, dependencies, *, err="", code=0):
    """A program that answers as pip-audit does."""
    out = json.dumps({"dependencies": dependencies}) if dependencies is not None else ""
    (tmp_path / "fake.py").write_text(
        f"import sys\nsys.stdout.write({out!r})\nsys.stderr.write({err!r})\nsys.exit({code})\n"
    )
    return (sys.executable, str(tmp_path / "fake.py"))


GOOD = {"name": "redis", "version": "8.1.0", "vulns": []}
BAD = {
    "name": "anyio",
    "version": "4.16.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["4.17.0"]}],
}
UNKNOWN = {"name": "zstandard", "skip_reason": "not found"}


def test_a_vulnerability_fails_the_check_and_is_named(tmp_path, capsys):
    assert main(reports(tmp_path, [GOOD, BAD, UNKNOWN], code=1)) == 1
    assert capsys.readouterr().err == "audit: anyio 4.16.0: PYSEC-1, mended in 4.17.0\n"


def test_clean_dependencies_pass_and_what_was_not_looked_up_is_said(tmp_path, capsys):
    assert main(reports(tmp_path, [GOOD, UNKNOWN])) == 0
    out = capsys.readouterr().out
    assert "1 pinned versions, nothing known against them" in out
    assert "not in the database: zstandard" in out


@pytest.mark.parametrize(
    ("dependencies", "err"),
    [([UNKNOWN], ""), (None, "x.ConnectionError: no route\n"), (None, "ReadTimeout: timed out\n")],
)
def test_a_database_out_of_reach_is_a_skip_that_says_so(tmp_path, capsys, dependencies, err):
    assert main(reports(tmp_path, dependencies, err=err, code=1)) == 0
    assert capsys.readouterr().out.startswith("audit: skipped, the database")


def test_a_program_that_breaks_is_no_pass(tmp_path, capsys):
    assert main(reports(tmp_path, None, err="ModuleNotFoundError: pip_audit\n", code=1)) == 1
    assert "pip-audit failed" in capsys.readouterr().err


def test_check_asks_for_the_audit():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert "\ncheck: lint types audit" in makefile
    assert "tests/security/audit.py" in makefile
