"""All checks, and how they are made."""

from __future__ import annotations

from askeld.doctor.data_checks import data
from askeld.doctor.facts import Facts
from askeld.doctor.finding import Finding, Verdict, unknown
from askeld.doctor.server_checks import server
from askeld.doctor.work_checks import work

#: Name -> check; in the order in which they are printed.
CHECKS = {**server.checks, **work.checks, **data.checks}
_ASKS = {**server.asks, **work.asks, **data.asks}


def examine(facts: Facts) -> list[Finding]:
    """Return what every check says of *facts*."""
    return [Finding(name, *_verdict(name, facts)) for name in CHECKS]


def _verdict(name: str, facts: Facts) -> Verdict:
    refused = sorted(_ASKS[name] & facts.refused)
    if refused:
        return unknown(
            f"skipped: user {facts.user!r} may not ask ({', '.join(refused)})",
            "run askel doctor as the user of a worker, which may",
        )
    return CHECKS[name](facts)
