"""What a check says."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

import msgspec


class Level(StrEnum):
    """How bad it is: only ``red`` makes the doctor exit with 6."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"
    UNKNOWN = "unknown"


class Finding(msgspec.Struct, frozen=True):
    """What one check found: its name, how bad it is, what is so, and what to do about it."""

    check: str
    level: Level
    detail: str
    fix: str = ""


def green(detail: str) -> tuple[Level, str, str]:
    """All is well."""
    return Level.GREEN, detail, ""


def yellow(detail: str, fix: str) -> tuple[Level, str, str]:
    """Something to look at before it hurts."""
    return Level.YELLOW, detail, fix


def red(detail: str, fix: str) -> tuple[Level, str, str]:
    """Runs are lost, stand still, or soon will."""
    return Level.RED, detail, fix


def unknown(detail: str, fix: str = "") -> tuple[Level, str, str]:
    """It could not be found out."""
    return Level.UNKNOWN, detail, fix


Verdict = tuple[Level, str, str]
F = TypeVar("F", bound=Callable[..., Verdict])


class Registry:
    """The checks in the order in which they were written down."""

    def __init__(self) -> None:
        """Begin with none."""
        self.checks: dict[str, Callable[..., Verdict]] = {}
        self.asks: dict[str, frozenset[str]] = {}

    def check(self, name: str, *asks: str) -> Callable[[F], F]:
        """Register a function of the facts as the check *name*.

        *asks* are the commands without which it cannot judge: refused, they would look like
        something that is missing.
        """

        def register(function: F) -> F:
            assert name not in self.checks
            self.checks[name] = function
            self.asks[name] = frozenset(asks)
            return function

        return register
