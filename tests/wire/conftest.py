"""Fixtures of the tests in this folder."""

from tests.helpers.state import distant, keys, proxy, service

__all__ = ["distant", "keys", "proxy", "service"]
