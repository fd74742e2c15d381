"""What the documentation names exists: targets, files, links, verbs, commands, words."""

import io
import re
import tomllib
from pathlib import Path

import pytest
from rich.console import Console
from tests.helpers.markdown import Page
from tests.helpers.workers import ROOT

import askel
from askel.wire import CommandError, decode_command
from askeld.cli import VERBS
from askeld.cli.demo import _print_report
from askeld.cli.exits import Exit
from askeld.demo import Report

PAGES = [
    Page(path)
    for path in (
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "benchmarks").rglob("*.md")),
    )
]
README, CONTRIBUTING = PAGES[:2]
#: What pages name that is made while people work, and names of their own files.
MADE = re.compile(r"\.(askel|venv|cache)\b.*|shop\.py|askel\.toml|out\.json|client\.py")


def page_id(page):
    return str(page.path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    broken = []
    for link in page.links:
        name, _, anchor = link.partition("#")
        target = page.path if not name else page.path.parent / name
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor not in Page(target).anchors
        ):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = [*page.spans, *(block.text for block in page.blocks)]
    named = {name for text in code for name in re.findall(r"(?:^|\n)make ([a-z-]+)", text)}
    assert named <= targets
    assert page is not README or {"demo", "test", "bench"} <= named


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_files_exist(page):
    missing = []
    for span in page.spans:
        if not re.fullmatch(r"[\w.][\w.@-]*(/[\w.@-]+)*/?", span) or MADE.fullmatch(span):
            continue
        if "/" not in span and Path(span).suffix not in {".md", ".py", ".txt", ".toml", ".lua"}:
            continue
        roots = (ROOT, page.path.parent, ROOT / "daemon", ROOT / "state", ROOT / "state" / "askel")
        if not any((root / span).exists() for root in roots):
            missing.append(span)
    assert missing == []


def test_the_readme_lists_the_verbs_and_the_exit_codes():
    line = next(span for span in README.spans if span.startswith("worker demo"))
    assert sorted(line.split()) == sorted(VERBS)
    text = " ".join(README.prose.split())
    codes = re.search(r"Exit codes: ([^.]+)\.", text)[1]
    assert codes.split(", ") == [
        f"{code.value} {code.name.lower().replace('_', ' ')}" for code in Exit if code.value <= 6
    ]


def test_the_commands_that_the_readme_lists_are_known():
    text = " ".join(README.prose.split())
    listed = re.search(r"`(run\.start run\.create [^`]+)`", text)[1].split()
    assert len(listed) >= 12
    for kind in listed:
        with pytest.raises(CommandError) as refused:
            decode_command([b"type", kind.encode()])
        assert refused.value.reason == "invalid_command"  # Fields are missing, the type is known.


def test_the_wire_page_has_every_command_that_the_readme_lists():
    wire = Page(ROOT / "docs" / "wire.md")
    text = " ".join(README.prose.split())
    listed = re.search(r"`(run\.start run\.create [^`]+)`", text)[1].split()
    assert set(listed) <= set(wire.spans)


def test_the_names_of_the_library_that_the_readme_uses_exist():
    names = {span for span in README.spans if re.fullmatch(r"[A-Z]\w*[a-z]\w*", span)}
    assert names >= {"RedisWorkflowService", "StepFailedError", "StepContext"}
    assert {name for name in names if not hasattr(askel, name)} == set()


def test_the_extras_that_the_pages_install_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    code = "\n".join(block.text for page in PAGES for block in page.blocks)
    named = {name for group in re.findall(r"askel\[([a-z,]+)\]", code) for name in group.split(",")}
    assert "all" in named
    assert named <= extras["optional-dependencies"].keys()


def test_the_table_that_the_readme_shows_is_what_the_demo_prints():
    shown = README.block("runs completed").splitlines()
    numbers = [int(re.search(r"\d+", line)[0]) for line in shown]
    completed, steps, attempts, retried, re_executed, lost, duplicated = numbers
    assert attempts == steps - completed + retried + re_executed  # A run has one sleep.
    printed = io.StringIO()
    report = Report(
        runs=completed,
        completed=completed,
        steps=steps,
        attempts=attempts,
        retried=retried,
        re_executed=re_executed,
        lost=lost,
        duplicated=duplicated,
        seconds=1.0,
        steps_per_second=1.0,
        recovery_seconds=1.0,
    )
    _print_report(Console(file=printed, width=120), report)
    lines = [line.rstrip() for line in printed.getvalue().splitlines()]
    begin = lines.index(shown[0])
    assert lines[begin : begin + len(shown)] == shown


def test_contributing_names_the_folders_that_there_are():
    folders = {span.partition("/")[0] for span in CONTRIBUTING.spans if span.endswith("/")}
    assert folders >= {"state", "daemon", "tests", "deploy", "examples", "benchmarks", "docs"}
