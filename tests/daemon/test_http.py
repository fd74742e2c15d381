"""The HTTP server of a worker: what strangers send is no error of ours."""

import http.client
import logging
import socket

import pytest
import structlog

from askeld.health import Health
from askeld.http import HttpServer


@pytest.fixture
def health():
    return Health("web-1", 30.0)


@pytest.fixture
def address(health):
    server = HttpServer("127.0.0.1:0", health, structlog.get_logger())
    yield tuple(server.start().split(":"))
    server.stop()


def send(address, data):
    """Return all that is answered to *data*, until the server hangs up."""
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(data)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
        return answer


def status_of(address, path="/healthz"):
    connection = http.client.HTTPConnection(*address, timeout=10)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nLong: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nno header\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        # A request that is well, and another behind it that is not.
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n{}\r\n\r\n",
    ],
    ids=["line", "header", "no header", "TLS", "second"],
)
def test_a_request_that_cannot_be_read_is_a_400_and_no_error(address, caplog, data):
    with caplog.at_level(logging.INFO):
        answer = send(address, data)

    assert b"HTTP/1.1 400" in answer or b"HTTP/1.0 400" in answer
    assert caplog.records == []
    assert status_of(address) in {200, 503}


def test_it_is_seen_by_those_who_debug(address, caplog):
    """In a line, and without what was sent."""
    with caplog.at_level(logging.DEBUG):
        send(address, b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n")

    (record,) = [one for one in caplog.records if one.name == "askeld.http"]
    assert (record.levelname, record.exc_info) == ("DEBUG", None)
    assert "xxx" not in record.getMessage()


def test_a_mistake_of_ours_is_an_error_still(health, address, caplog, monkeypatch):
    monkeypatch.setattr(health, "obstacles", lambda: 1 / 0)

    assert status_of(address, "/readyz") == 500

    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]
    assert record.exc_info[0] is ZeroDivisionError
