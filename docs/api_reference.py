"""Writes docs/api.md, the API reference, from signatures and docstrings: `make api`.

The sources are read and not imported. `python docs/api_reference.py --check` writes nothing and
fails when the page is out of date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"

INTRODUCTION = """\
<!-- Written by `make api` from signatures and docstrings. Changes belong there. -->

# API reference

All that `askel` exports. What is not here, names of submodules included, may change with any
release. How the parts fit together: [embedding](embedding.md) and the [README](../README.md).
"""

#: The sections of the page; each takes the names that fit and that none before has taken.
SECTIONS = (
    ("Workflows", r"App|Run|StepContext|Client|RunHandle|StreamQueue|DeadLetters"),
    (
        "The state service",
        r"(Sync)?RedisWorkflowService|RunLock|RunMirror|IfExists|StepOptions|UNSET",
    ),
    ("Errors", r".*Error"),
    ("Payloads", r"Codec|Zstd|AesGcm|PayloadTransform|Sealed"),
    ("Durations and sizes", r"(D|d)uration.*|(S|s)ize.*"),
    ("Records", r".*"),
)
#: Not exported, because nobody makes one: what methods answer.
ANSWERS = {
    "Transaction": "askel.state.writes.transaction",
    "HistoryEntry": "askel.state.reads.history",
    "ServerFacts": "askel.state.store.server",
}
_RECORDS_NAMED_ERROR = {"SerializedError"}
#: What users are given and never make; and what only askel itself calls.
_GIVEN = {"Run", "RunHandle", "RunLock", "StepContext", *ANSWERS}
_INTERNAL = {"for_compat", "step_of", "mark_lost", "mark_released", "released"}
_OWN = {("Transaction", "close")}
_LONG = 88


class Reference:
    """The names of the package and how each is shown."""

    def __init__(self) -> None:
        """Read the sources."""
        self._package = griffe.load("askel", search_paths=[ROOT / "state"])
        assert isinstance(self._package, griffe.Module)
        exports = self._package.exports or []
        self.names = [*map(str, exports), *ANSWERS]

    def text(self) -> str:
        """Return the whole page."""
        sections = self._sections()
        parts = [INTRODUCTION]
        for title, names in sections:
            parts.append(f"**{title}**\n")
            parts.append(
                "\n".join(f"* {self._link(name)}: {self._summary(name)}" for name in names)
            )
            parts.append("")
        for title, names in sections:
            parts.append(f"## {title}\n")
            if title == "Errors":
                parts.append(_code(self._error_tree(), "text"))
            parts += [part for name in names for part in self._shown(name)]
        return "\n".join(parts).rstrip() + "\n"

    def _sections(self) -> list[tuple[str, list[str]]]:
        left = list(self.names)
        found = []
        for title, pattern in SECTIONS:
            names = [name for name in left if re.fullmatch(pattern, name) and name not in ANSWERS]
            if title != SECTIONS[-1][0]:
                names = [name for name in names if name not in _RECORDS_NAMED_ERROR]
            left = [name for name in left if name not in names]
            found.append((title, names))
        found.append(("Not exported: what methods answer", list(ANSWERS)))
        order = self._error_order()
        return [
            (title, sorted(names, key=order.index) if title == "Errors" else names)
            for title, names in found
        ]

    def _error_tree(self) -> str:
        """Return the tree that the docstring of the module draws."""
        errors = self._package["errors"]
        lines = errors.docstring.value.splitlines()
        return "\n".join(line[4:] for line in lines if line.startswith("    "))

    def _error_order(self) -> list[str]:
        """Return the errors as the module that draws their tree has them."""
        return [name for name in self._package["errors"].members if name.endswith("Error")]

    def _target(self, name: str) -> griffe.Object:
        if name in ANSWERS:
            answer = self._package[ANSWERS[name].removeprefix("askel.")][name]
            assert isinstance(answer, griffe.Object)
            return answer
        member = self._package[name]
        target = member.final_target if isinstance(member, griffe.Alias) else member
        assert isinstance(target, griffe.Object)
        return target

    def _link(self, name: str) -> str:
        return f"[`{name}`](#{name.lower()})"

    def _summary(self, name: str) -> str:
        docstring = self._target(name).docstring
        assert docstring is not None, f"{name} has no docstring"
        first = re.split(r"(?<=\.)\s", docstring.value.partition("\n\n")[0], maxsplit=1)[0]
        return self._prose(first, but=name)

    def _shown(self, name: str) -> Iterator[str]:
        target = self._target(name)
        yield f"### `{name}`\n"
        if isinstance(target, griffe.Class):
            yield from self._class(name, target)
        elif isinstance(target, griffe.Function):
            yield _code(_signature(target, target.name))
            yield from self._docstring(target, but=name)
        else:
            assert isinstance(target, griffe.Attribute)
            yield _code(f"{name} = {target.value}")
            yield from self._docstring(target, but=name)

    def _class(self, name: str, target: griffe.Class) -> Iterator[str]:
        bases = [str(base).rpartition(".")[2] for base in target.bases]
        if {"StrEnum", "Struct", "NamedTuple", "StepState"} & set(bases):
            yield from self._record(name, target, bases)
            return
        init = None if name in _GIVEN else target.members.get("__init__")
        shown = _signature(init, name) if isinstance(init, griffe.Function) else name
        inherited = f"  # base: {bases[0]}" if bases and bases[0] in self.names else ""
        yield _code(f"class {shown}{inherited}")
        yield from self._docstring(target, but=name)
        if isinstance(init, griffe.Function) and not name.endswith("Error"):
            yield from self._docstring(init, but=name, only_sections=True)
        blocking = []
        for member in _public_members(target):
            if isinstance(member, griffe.Function) and (name, member.name) not in _OWN:
                yield f"#### `{name}.{member.name}`\n"
                yield _code(_signature(member, member.name))
                yield from self._docstring(member, but=name)
            elif "property" in member.labels:
                yield f"#### `{name}.{member.name}`\n"
                yield from self._docstring(member, but=name)
            elif isinstance(member, griffe.Attribute) and "_blocking" in str(member.value):
                blocking.append(member.name)
        if blocking:
            links = ", ".join(
                f"[`{method}`](#redisworkflowservice{method})" for method in sorted(blocking)
            )
            yield f"Blocking forms of methods of `RedisWorkflowService`: {links}.\n"

    def _record(self, name: str, target: griffe.Class, bases: list[str]) -> Iterator[str]:
        """Show a record by its fields, an enum by its values."""
        described = {}
        for section in _sections_of(target):
            if section.kind is griffe.DocstringSectionKind.attributes:
                described = {item.name: item.description for item in section.value}
        yield from self._docstring(target, but=name, skipped="attributes")
        fields = [
            member
            for member in target.all_members.values()
            if isinstance(member, griffe.Attribute | griffe.Alias)
            and member.is_attribute
            and not member.name.startswith("_")
        ]
        if "StrEnum" in bases:
            values = ", ".join(f"`{str(f.value).strip(chr(39))}`" for f in fields if f.value)
            yield f"Values: {values}.\n"
            return
        lines = ["| field | type | default |", "|---|---|---|"]
        if described:
            lines = [f"{line} {more} |" for line, more in zip(lines, (" ", "---"), strict=True)]
        for field in fields:
            if "property" in field.labels:
                continue
            annotation = str(field.annotation).replace("|", "\\|")
            default = "" if field.value is None else f"`{field.value}`"
            lines.append(f"| `{field.name}` | `{annotation}` | {default} |")
            if described:
                lines[-1] += f" {self._prose(described.get(field.name, ''), but=name)} |"
        yield "\n".join(lines) + "\n"
        for member in _public_members(target):
            if "property" in member.labels and member.docstring is not None:
                yield f"`{member.name}`: {self._prose(member.docstring.value, but=name)}\n"

    def _docstring(
        self, member: griffe.Object, *, but: str, only_sections: bool = False, skipped: str = ""
    ) -> Iterator[str]:
        for section in _sections_of(member):
            match section.kind:
                case kind if kind.value == skipped:
                    continue
                case griffe.DocstringSectionKind.text:
                    if not only_sections:
                        yield self._prose(section.value, but=but) + "\n"
                case griffe.DocstringSectionKind.returns:
                    yield (
                        "**Returns:** " + self._prose(section.value[0].description, but=but) + "\n"
                    )
                case _:
                    yield f"**{section.kind.value.capitalize()}**\n"
                    yield "\n".join(self._item(item, but) for item in section.value) + "\n"

    def _item(self, item: griffe.DocstringElement, but: str) -> str:
        name = str(getattr(item, "name", None) or item.annotation)
        names = ", ".join(f"`{part.strip()}`" for part in name.strip("()").split(","))
        return f"* {self._prose(names, but=but)}: {self._prose(item.description, but=but)}"

    def _prose(self, text: str, *, but: str) -> str:
        """Return *text* as Markdown, names of the package as links, all but that of the place."""
        text = re.sub(r"\s*\n(?!\n)\s*", " ", re.sub(r"\n\n+", "\n\n", text).replace("\n\n", "\0"))
        text = text.replace("\0", "\n\n").replace("``", "`")
        return re.sub(
            r"(?<![\[\w])(`?)([A-Z]\w+)\1(?![\w`(\]]|\.\w)", lambda m: self._named(m, but), text
        )

    def _named(self, match: re.Match[str], but: str) -> str:
        name = match[2]
        camel = match[1] or re.search(r"[a-z][A-Z]", name)
        return self._link(name) if name in self.names and name != but and camel else match[0]


def _sections_of(member: griffe.Object) -> list[griffe.DocstringSection]:
    """Return the parts of the docstring, the text and what has a heading."""
    if member.docstring is None:
        return []
    # The parser wants an exception list on one line.
    text = re.sub(r"(\w+Error),\n +", r"\1, ", member.docstring.value)
    return griffe.Docstring(text, parent=member).parse(
        "google", warn_unknown_params=False, returns_multiple_items=False
    )


def _public_members(target: griffe.Class) -> Iterator[griffe.Object]:
    """Return the members that users call, those of the class itself first."""
    found: dict[str, griffe.Object] = {}
    for owner in (target, *target.mro()):
        for name, member in owner.members.items():
            if isinstance(member, griffe.Object) and not name.startswith("_"):
                found.setdefault(name, member)
    return iter([member for name, member in found.items() if name not in _INTERNAL])


def _signature(function: griffe.Function, name: str) -> str:
    """Return the signature, on several lines where it is long."""
    parameters, star = [], False
    for parameter in function.parameters:
        if parameter.name == "self":
            continue
        kind = parameter.kind
        if kind is griffe.ParameterKind.keyword_only and not star:
            parameters.append("*")
        star = star or kind in {
            griffe.ParameterKind.keyword_only,
            griffe.ParameterKind.var_positional,
        }
        prefix = {
            griffe.ParameterKind.var_positional: "*",
            griffe.ParameterKind.var_keyword: "**",
        }.get(kind, "")
        text = f"{prefix}{parameter.name}"
        if parameter.annotation is not None:
            text += f": {parameter.annotation}"
        if parameter.default is not None and not prefix:
            text += f" = {parameter.default}"
        parameters.append(text)
    is_async = "async " if "async" in function.labels else ""
    answer = "" if name == "__init__" or function.returns is None else f" -> {function.returns}"
    if function.name == "__init__":
        is_async = answer = ""
    inner = ", ".join(parameters)
    if len(inner) + len(name) + len(answer) > _LONG:
        inner = "\n" + "".join(f"    {parameter},\n" for parameter in parameters)
    return f"{is_async}{name}({inner}){answer}"


def _code(text: str, language: str = "python") -> str:
    return f"```{language}\n{text}\n```\n"


def main() -> int:
    """Write the page, or check it."""
    text = Reference().text()
    if "--check" in sys.argv[1:]:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
