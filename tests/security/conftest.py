"""Fixtures of the tests of security."""

from tests.cli.conftest import call
from tests.helpers.daemon import deployment

__all__ = ["call", "deployment"]
