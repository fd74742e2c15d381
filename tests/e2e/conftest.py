"""Fixtures of the tests in this folder."""

from tests.helpers.daemon import deployment
from tests.helpers.state import keys, proxy

__all__ = ["deployment", "keys", "proxy"]
