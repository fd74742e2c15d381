"""``askel acl``: Redis users with the least privileges."""

from __future__ import annotations

import argparse
import os
import sys

from askel import InvalidOptionError
from askel.state import Keys, check_compat, read_secret
from askeld.acl import (
    PLACEHOLDER,
    ROLES,
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
    if options.json:
        print_json({role: _as_json(role, options) for role in _chosen(options)})
    elif options.role is None:
        sys.stdout.write(acl_file(options.prefix, compat=options.compat, select=options.select))
    else:
        line = user_line(
            options.role,
            options.prefix,
            user=options.user,
            digest=_digest(options.password_file),
            compat=options.compat,
            select=options.select,
        )
        sys.stdout.write(f"{line}\n")
    return Exit.OK


def _chosen(options: argparse.Namespace) -> list[str]:
    return [options.role] if options.role else list(ROLES)


def _as_json(role: str, options: argparse.Namespace) -> dict[str, object]:
    given = {"compat": options.compat, "select": options.select}
    return {
        "purpose": ROLES[role].purpose,
        "keys": [f"{options.prefix}:{keys}" for keys in ROLES[role].keys],
        "commands": commands_of(role, **given),
        "rule": list(rule(role, options.prefix, **given)),
    }


def _digest(path: str | None) -> str:
    """Return the hash of the password in the file at *path*, read as connections read it.

    Raises:
        InvalidOptionError: It cannot be read, or does not hold one line.
    """
    if path is None:
        return PLACEHOLDER
    return password_digest(read_secret(path, "--password-file"))
