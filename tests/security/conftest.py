"""Fixtures of the tests of security."""

from tests.helpers.daemon import deployment

__all__ = ["deployment"]
