"""What is shipped: the wheel is built, and every file in it looked at."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.helpers.workers import ROOT

#: Modules by which data becomes code.
MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "yaml"}
#: Functions by which text becomes code.
BUILTINS = {"eval", "exec", "compile", "__import__"}
#: Of `os`, `subprocess` and `asyncio`: what hands text to a shell.
SHELLS = {"system", "popen", "getoutput", "getstatusoutput", "create_subprocess_shell"}
#: Beside code: the data of the example that `askel demo` runs.
SUFFIXES = {".py", ".lua", ".typed", ".md", ".csv", ".c"}
#: C source that is compiled on the user's own machine, for tests of clocks and power cuts.
C_SOURCE = "askeld/torture/"
#: Bytes that begin a program or a library.
BINARIES = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"!<arch>")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> dict[str, bytes]:
    """The files of the wheel by name, built as a release is, without a network."""
    out = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def dangers(source: str) -> list[str]:
    """Name what in Python *source* could turn data into code, or text into a shell's command."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                modules = [alias.name.partition(".")[0] for alias in names]
                found += [f"{node.lineno}: import {name}" for name in modules if name in MODULES]
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in MODULES:
                found.append(f"{node.lineno}: from {module}")
            case ast.Call(func=ast.Name(id=name)) if name in BUILTINS:
                found.append(f"{node.lineno}: {name}()")
            case ast.Call(func=ast.Attribute(attr=name)) if name in SHELLS:
                found.append(f"{node.lineno}: .{name}()")
            case ast.Call(keywords=keywords):
                for word in keywords:
                    is_off = isinstance(word.value, ast.Constant) and word.value.value is False
                    if word.arg == "shell" and not is_off:
                        found.append(f"{node.lineno}: shell=")
            case _:
                pass
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from marshal import loads",
        "import yaml.loader",
        "def f():\n    import shelve",
        "eval('1')",
        "exec(text)",
        "compile(text, 'f', 'exec')",
        "__import__(name)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "subprocess.run(text, shell=flag)",
        "asyncio.create_subprocess_shell(text)",
    ],
)
def test_every_danger_would_be_seen(source):
    assert len(dangers(source)) == 1


def test_what_is_harmless_is_not_taken_for_it():
    assert dangers("re.compile(x); subprocess.run(x, shell=False); from picklejar import x") == []


def test_nothing_in_the_wheel_turns_data_into_code(wheel):
    """No pickle, marshal, eval, exec, yaml or shell, in any module that is installed."""
    modules = {name: text.decode() for name, text in wheel.items() if name.endswith(".py")}
    assert {"askel/__init__.py", "askeld/cli/__init__.py"} <= modules.keys()
    assert {name: found for name, text in modules.items() if (found := dangers(text))} == {}


def test_no_script_runs_text(wheel):
    """Lua as well: scripts are constant, and decode nothing into code."""
    scripts = {name: text.decode() for name, text in wheel.items() if name.endswith(".lua")}
    assert len(scripts) > 40
    words = ("loadstring", "load(", "dofile", "setfenv", "getfenv", "string.dump", "'EVAL")
    assert [(n, w) for n, text in scripts.items() for w in words if w in text] == []


def test_the_wheel_holds_its_packages_and_nothing_else(wheel):
    """No tests, no secrets, no program compiled elsewhere."""
    inside = [name for name in wheel if ".dist-info/" not in name]
    assert {name.partition("/")[0] for name in inside} == {"askel", "askeld"}
    assert {Path(name).suffix for name in inside} <= SUFFIXES
    assert [n for n in inside if n.endswith(".c") and not n.startswith(C_SOURCE)] == []
    parts = {part for name in inside for part in Path(name).parts}
    assert not parts & {"tests", "test", ".askel", ".env", ".git", "__pycache__", "node_modules"}
    assert [name for name, data in wheel.items() if data.startswith(BINARIES)] == []
    marks = (b"PRIVATE KEY-----", b"AKIA", b"ghp_", b"xoxb-")
    assert [(n, m) for n, data in wheel.items() for m in marks if m in data] == []
