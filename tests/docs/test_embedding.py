"""The page on embedding, done: its programs run and print what it says, its tables are true."""

import os
import re
import subprocess
import sys

import pytest
from tests.helpers.markdown import Page
from tests.helpers.workers import ROOT

import askel
from askel import AskelError, IfExists, RedisWorkflowService
from askel.state.moves import RUN_MOVES, STEP_MOVES
from askeld.embedded import EmbeddedServer

PAGE = Page(ROOT / "docs" / "embedding.md")
BLOCKS = [block.text for block in PAGE.blocks if block.language == "python"]
PROGRAMS = [text for text in BLOCKS if re.match(r"# \w+\.py\n", text)]
#: The rest is one program, told in parts.
STORY = "\n".join(text for text in BLOCKS if text not in PROGRAMS)
SHELL = """
import ast, asyncio, sys
code = compile(sys.stdin.read(), "embedding.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
asyncio.run(eval(code, {}))
"""


def promised(text):
    """Return the lines that *text* says it prints: behind a print, or below it."""
    lines, prints = [], False
    for line in text.splitlines():
        here = re.search(r"\bprint\(.*\)  # (.+)$", line)
        below = re.match(r" *# (.+)$", line)
        if here:
            lines.append(here[1])
        elif below and prints:
            lines.append(below[1])
        prints = line.strip().startswith("print(") or bool(below and prints)
    return lines


def run_program(server, *command, text=None):
    return subprocess.run(
        [sys.executable, *command],
        input=text,
        env={**os.environ, "REDIS_URL": server.url},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def server():
    with EmbeddedServer(port=0, options={"appendonly": "no"}) as server:
        yield server


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_program_prints_what_its_comments_say_twice(server, number, tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAMS[number])
    for _ in range(2):
        ran = run_program(server, path)
        assert (ran.stdout.splitlines(), ran.stderr) == (promised(PROGRAMS[number]), "")
        assert ran.stdout


def test_story_prints_what_its_comments_say(server):
    ran = run_program(server, "-c", SHELL, text=STORY + "\nawait service.close()\n")

    assert (ran.stdout.splitlines(), ran.stderr) == (promised(STORY), "")
    assert len(promised(STORY)) >= 15


def moves(heading):
    """Return the moves in the table below *heading*."""
    part = PAGE.text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = {}
    for sources, targets in re.findall(r"^\| (`[a-z` ]+`) \| (`[a-z` ]+`) \|$", part, re.MULTILINE):
        for source in re.findall(r"`(\w+)`", sources):
            found[source] = set(re.findall(r"`(\w+)`", targets))
    return found


@pytest.mark.parametrize(("heading", "table"), [("Runs", RUN_MOVES), ("Steps", STEP_MOVES)])
def test_tables_of_moves_are_those_of_the_library(heading, table):
    assert moves(heading) == {
        source.value: {target.value for target in targets}
        for source, targets in table.items()
        if targets
    }


def test_every_policy_and_reading_method_is_on_the_page():
    assert {policy.value for policy in IfExists} <= set(PAGE.spans)
    readers = {
        name
        for name in dir(RedisWorkflowService)
        if name.startswith(("get_", "list_")) or name == "reconstruct_run_state_at"
    }
    assert readers - {"get_retention"} <= set(PAGE.spans)


def test_names_of_errors_and_methods_exist():
    errors = {span for span in PAGE.spans if re.fullmatch(r"[A-Z]\w+Error", span)}
    assert len(errors) >= 12
    for name in errors:
        assert issubclass(getattr(askel, name), AskelError)
    called = set(re.findall(r"\bservice\.(\w+)\(", "\n".join(BLOCKS)))
    assert {name for name in called if not hasattr(RedisWorkflowService, name)} == set()
    assert len(called) > 15
