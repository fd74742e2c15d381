"""All checks, and how they are made."""

from __future__ import annotations

from askeld.doctor.data_checks import data
from askeld.doctor.facts import Facts
from askeld.doctor.finding import Finding
from askeld.doctor.server_checks import server
from askeld.doctor.work_checks import work

#: Name -> check; in the order in which they are printed.
CHECKS = {**server.checks, **work.checks, **data.checks}


def examine(facts: Facts) -> list[Finding]:
    """Return what every check says of *facts*."""
    return [Finding(name, *check(facts)) for name, check in CHECKS.items()]
