"""``askel acl``: Redis users with the least privileges."""

from __future__ import annotations

import argparse
import os
import sys

from askel import InvalidOptionError
from askel.state import Keys, check_compat, read_secret
from askeld.acl import (
    DURABILITY,
    PLACEHOLDER,
    ROLES,
    Extras,
    acl_file,
    commands_of,
    password_digest,
    rule,
    user_line,
)
from askeld.cli.exits import Exit
from askeld.cli.output import print_json

EPILOG = """\
Prints lines of an ACL file; after ACL SETUSER the words behind 'user' do the same on a running
server. Where no password is given a hash stands that no password has.

examples:
  askel acl > /etc/redis/users.acl
  askel acl --role producer --user shop --password-file shop.password
  askel acl --role worker --durability replicated    (workflows that are replicated(n))
  askel acl --role viewer --json
"""


def configure(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("--role", choices=list(ROLES), help="only a user of this role")
    parser.add_argument("--user", default="", metavar="NAME", help="its name (askel-ROLE)")
    parser.add_argument(
        "--password-file", metavar="FILE", help="holds its password, of which the hash is printed"
    )
    parser.add_argument(
        "--select", action="store_true", help="for URLs that name a database other than 0"
    )
    parser.add_argument(
        "--durability",
        action="append",
        default=[],
        choices=list(DURABILITY),
        help="for runs that are replicated(n) or fsync (always: fsync on a server before Redis "
        "7.2); repeatable",
    )
    parser.add_argument(
        "--compat", metavar="SYSTEM", help="pikku: for a prefix that Node services share"
    )
    parser.add_argument(
        "--prefix",
        default=os.environ.get("ASKEL_PREFIX") or "workflows",
        help="key prefix [ASKEL_PREFIX, default workflows]",
    )
    parser.add_argument("--json", action="store_true", help="print JSON: each command and why")
    parser.set_defaults(call=_print, verb=verb)


def _print(options: argparse.Namespace) -> int:
    Keys(options.prefix)  # refuses what is no prefix
    check_compat(options.compat)
    if options.role is None and (options.user or options.password_file):
        msg = "whose name or password? give --role, too"
        raise InvalidOptionError(msg)
    if options.durability and options.role and not ROLES[options.role].confirms:
        msg = f"--durability: a {options.role} confirms nothing; workers and producers do"
        raise InvalidOptionError(msg)
    extras = Extras(
        compat=options.compat, select=options.select, durability=tuple(options.durability)
    )
    if options.json:
        print_json({role: _as_json(role, options.prefix, extras) for role in _chosen(options)})
    elif options.role is None:
        sys.stdout.write(acl_file(options.prefix, extras))
    else:
        line = user_line(
            options.role,
            options.prefix,
            user=options.user,
            digest=_digest(options.password_file),
            extras=extras,
        )
        sys.stdout.write(f"{line}\n")
    return Exit.OK


def _chosen(options: argparse.Namespace) -> list[str]:
    return [options.role] if options.role else list(ROLES)


def _as_json(role: str, prefix: str, extras: Extras) -> dict[str, object]:
    return {
        "purpose": ROLES[role].purpose,
        "keys": [f"{prefix}:{keys}" for keys in ROLES[role].keys],
        "commands": commands_of(role, extras),
        "rule": list(rule(role, prefix, extras)),
    }


def _digest(path: str | None) -> str:
    """Return the hash of the password in the file at *path*, read as connections read it.

    Raises:
        InvalidOptionError: It cannot be read, or does not hold one line.
    """
    if path is None:
        return PLACEHOLDER
    return password_digest(read_secret(path, "--password-file"))
