"""Servers of their own for tests that do to a server what nobody may do to a shared one."""

import pytest
from tests.helpers.servers import require_binary, server_ids

from askeld.torture import shims
from askeld.torture.server import TortureServer


@pytest.fixture(params=server_ids())
def every_binary(request):
    """Each server that is known, one after the other."""
    return require_binary(request.param)


@pytest.fixture
def shimmed():
    """Skip, with the reason, where no shim can be compiled."""
    if reason := shims.unavailable():
        pytest.skip(f"SHIMS LEFT OUT: {reason}")


@pytest.fixture
def torture_server(tmp_path, every_binary, shimmed):
    """A server with both shims and `appendfsync always`."""
    with TortureServer(tmp_path / "server", binary=every_binary) as server:
        assert not server.without
        yield server
