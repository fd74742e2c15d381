"""The runbook has a line for every alarm there is, and for none that there is not."""

import ast
import re
import signal

from tests.helpers.markdown import Page
from tests.helpers.workers import ROOT

from askel.state import ServerFacts
from askeld.cli import VERBS
from askeld.cli.exits import Exit
from askeld.doctor import CHECKS
from askeld.health import Health
from askeld.store_check import facts_to_warn_of
from askeld.store_watch import _OTHER, _TOLD

PAGE = Page(ROOT / "docs" / "operations.md")
LEVELS = {"warning": "warning", "error": "error", "exception": "error", "critical": "error"}
OF_STORE = {event: level for level, event, _ in (*_TOLD.values(), _OTHER)}


def rows(title):
    """Return the rows of the tables of a section that name something, each as its cells."""
    section = re.search(
        rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE.prose, re.MULTILINE | re.DOTALL
    )[1]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return [row for row in cells if "`" in row[0] or row[0][0].isdigit()]


def spans(text):
    return re.findall(r"`([^`]+)`", text)


def named(title):
    """Return what the first cells of a section name."""
    return [word for row in rows(title) for word in spans(row[0])]


def sources(folder):
    return [path.read_text("utf-8") for path in sorted((ROOT / folder).rglob("*.py"))]


def nodes(folder, kind):
    return [
        node
        for text in sources(folder)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, kind)
    ]


def constants(node):
    """Return the texts that an expression may be: a constant, or one of two."""
    if isinstance(node, ast.IfExp):
        return constants(node.body) | constants(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def logged(folder):
    """Return events and their levels as calls of a logger have them, and the calls without."""
    found, others = {}, []
    for call in nodes(folder, ast.Call):
        if (
            not isinstance(call.func, ast.Attribute)
            or call.func.attr not in LEVELS
            or not ast.unparse(call.func.value).endswith(("log", "get_logger()"))
        ):
            continue
        events = constants(call.args[0])
        for event in events:
            found.setdefault(event, set()).add(LEVELS[call.func.attr])
        if not events:
            others.append(ast.unparse(call))
    return found, others


def test_every_warning_and_error_of_the_log_has_its_line():
    found, others = logged("daemon/askeld")
    # What is no constant: it is told from a table, which is asked here.
    assert others == ["self._log.warning(event, hint=hint)"]
    facts = ServerFacts("7.0.0", "noeviction", append_only=False, store_id="")
    found |= {event: {"warning"} for event in facts_to_warn_of(facts)}
    found |= {event: {level} for event, level in OF_STORE.items()}
    found["run_stuck"] = {"warning", "error"}
    assert (
        'log = self._log.warning if mended else self._log.error\n        log("run_stuck"'
        in "".join(sources("daemon/askeld"))
    )
    told = {
        event: set(row[1].split(", "))
        for row in rows("What the log says")
        for event in spans(row[0])
    }
    assert told == found


def test_what_the_library_logs_is_told():
    found, others = logged("state/askel")
    assert not others
    assert found
    told = tuple(" ".join(words.split()) for words in spans(PAGE.prose))
    for message in found:
        assert message.startswith(told), message


def test_every_reason_of_health_has_its_line():
    text = "".join(sources("daemon/askeld"))
    loops = set(re.findall(r'\bpulse\(\s*"(\w+)"', text))
    loops |= set(re.findall(r'health\.check\("(\w+)"', text))
    reasons = set(re.findall(r'\.hinder\("(\w+)"\)', text)) | set(Health("w", 1).obstacles())
    assert len(loops) > 10
    told = named("What a worker's health says")
    assert sorted(told) == sorted({*loops, *reasons, "stuck: LOOP", *OF_STORE})


def worst(name):
    """Return the worst that a check may say, as its code has it."""
    (function,) = (
        node
        for node in nodes("daemon/askeld/doctor", ast.FunctionDef)
        if node.name == CHECKS[name].__name__ and node.decorator_list
    )
    said = {
        node.func.id
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    return next(level for level in ("red", "yellow", "unknown") if level in said)


def test_every_check_of_the_doctor_has_its_line():
    told = {spans(row[0])[0]: row[1] for row in rows("What `askel doctor` says")}
    assert list(told) == ["reachable", *CHECKS]
    assert {name: worst(name) for name in CHECKS} | {"reachable": "red"} == told
    assert f"the deployment: {len(told)} checks" in PAGE.text


def reasons():
    """Return every word that a dead letter may have for its reason."""
    found = set()
    for folder in ("daemon/askeld", "state/askel/wire"):
        for call in nodes(folder, ast.Call):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if name in {"bury", "_bury"} and len(call.args) > 1:
                found |= constants(call.args[1])
            if name == "CommandError" and call.args:
                found |= constants(call.args[0])
        for node in nodes(folder, ast.Assign):
            if ast.unparse(node.targets[0]) == "reason":
                found |= constants(node.value)
    of_refusals = ast.parse((ROOT / "daemon/askeld/reasons.py").read_text("utf-8"))
    for node in ast.walk(of_refusals):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
            found |= constants(node.value.elts[0])
    for path in (ROOT / "state/askel/state/lua").rglob("*.lua"):
        found |= set(re.findall(r"'reason', '(\w+)', 'detail'", path.read_text("utf-8")))
    return {word for word in found if re.fullmatch(r"[a-z_]+", word)}


def test_every_reason_of_a_dead_letter_has_its_line():
    assert sorted(named("Dead letters")) == sorted(reasons())
    page = Page(ROOT / "docs" / "dead-letters.md")
    kinds = {name.removesuffix("…") for name in page.spans}
    assert all(name in kinds or name.partition("_")[0] + "_" in kinds for name in reasons())


def test_every_state_of_why_has_its_line():
    found = set()
    for call in nodes("state/askel/wire", ast.Call):
        if getattr(call.func, "id", "") == "Why":
            for word in call.keywords:
                found |= constants(word.value) if word.arg == "state" else set()
    assert len(found) > 20
    assert sorted(named("What `askel why` says")) == sorted(found)


def test_every_exit_code_has_its_line():
    told = [int(code) for row in rows("Exit codes") for code in row[0].split()]
    signals = {128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    assert sorted(told) == sorted({*map(int, Exit), *signals})


def test_commands_exist():
    code = [*PAGE.spans, *(block.text for block in PAGE.blocks)]
    verbs = {
        verb for text in code for verb in re.findall(r"(?:^|\$ )askel ([a-z]+)", text, re.MULTILINE)
    }
    assert verbs >= {"doctor", "why", "dead", "ls", "health"}
    assert verbs <= set(VERBS)


def test_events_that_the_recipes_name_are_logged():
    found, _ = logged("daemon/askeld")
    known = {*found, *OF_STORE, *reasons(), *named("What `askel why` says")}
    text = "".join(sources("daemon/askeld"))
    recipes = PAGE.text.partition("## What to do when")[2]
    for word in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", recipes):
        assert word in known or f'"{word}"' in text, word
