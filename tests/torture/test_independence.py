"""The judge shares no code with what it judges."""

import ast

from tests.helpers.workers import ROOT

SOURCES = ROOT / "daemon"


def imported(name):
    """Return the modules of askel that a module imports."""
    path = SOURCES / f"{name.replace('.', '/')}.py"
    tree = ast.parse(path.read_text("utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {one for one in inner if (SOURCES / f"{one.replace('.', '/')}.py").exists()}
            found |= modules or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {one for one in found if one.partition(".")[0] in {"askel", "askeld"}}


def test_the_judge_imports_nothing_of_what_it_judges():
    """Neither does anything that it imports."""
    seen, ahead = set(), {"askeld.torture.judge"}
    while ahead:
        name = ahead.pop()
        seen.add(name)
        ahead |= imported(name) - seen
        assert name.startswith("askeld.torture."), name
    assert {"askeld.torture.aof", "askeld.torture.replay", "askeld.torture.run_rules"} <= seen


def test_it_would_be_noticed():
    assert "askel.state" in imported("askeld.stuck")
