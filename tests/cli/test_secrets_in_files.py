"""The daemon and the verbs with the password in a file."""

import pytest
from tests.helpers.keys import sync_client

from askeld.config import redis_url
from askeld.embedded import EmbeddedServer

SECRET = "s3cret w0rd"


@pytest.fixture(scope="module")
def closed_server():
    with EmbeddedServer(port=0, options={"requirepass": SECRET}) as server:
        yield server


@pytest.mark.parametrize("name", ["REDIS_PASSWORD_FILE", "ASKEL_REDIS_PASSWORD_FILE"])
def test_password_may_stand_in_a_file(call, closed_server, tmp_path, name):
    (tmp_path / "pass word").write_text(f"{SECRET}\n")
    at = f"redis://127.0.0.1:{closed_server.port}/0"
    secret = {name: str(tmp_path / "pass word")}

    assert call("ls", REDIS_URL=at, **secret).out == "no runs\n"
    assert call("ls", "--redis", at, **secret).out == "no runs\n"
    assert call("ls", REDIS_URL=f"{at}?socket_timeout=5", **secret).out == "no runs\n"
    ran = call("ls", REDIS_URL=at, **{name: str(tmp_path / "absent")})
    assert ran.code == 1
    assert ran.complaint.startswith(f"askel ls: {name}: cannot read {tmp_path}/absent")
    (tmp_path / "pass word").write_bytes(b"\xff\xfe")
    ran = call("ls", REDIS_URL=at, **secret)
    assert ran.code == 1
    assert ran.complaint == f"askel ls: {name}: {tmp_path}/pass word is not UTF-8 text"


def test_password_of_the_address_itself_comes_first(tmp_path):
    (tmp_path / "password").write_text("x")
    secret = {"REDIS_PASSWORD_FILE": str(tmp_path / "password")}
    for url in ("redis://:a@h", "redis://h?password=a", "redis://h?password_file=/a", "redis://[x"):
        assert redis_url(url, secret) == url
    assert redis_url("redis://h", secret) == f"redis://h?password_file={tmp_path}/password".replace(
        f"{tmp_path}/password", str(tmp_path / "password").replace("/", "%2F")
    )


def test_address_in_a_file_is_read_anew_and_never_repeated(call, closed_server, tmp_path):
    path = tmp_path / "url"
    path.write_text(f"redis://:wr0ng@127.0.0.1:{closed_server.port}")
    ran = call("ls", REDIS_URL_FILE=str(path))
    assert ran.code == 1
    assert "does not accept the user name and password" in ran.complaint
    assert "wr0ng" not in ran.err
    path.write_text(closed_server.url)
    assert call("ls", REDIS_URL_FILE=str(path)).out == "no runs\n"
    path.write_text("nonsense s3cret")
    ran = call("ls", REDIS_URL_FILE=str(path))
    assert ran.code == 2
    assert "the Redis connection is not understood" in ran.complaint
    assert "s3cret" not in ran.err
    with sync_client(closed_server.url) as client:
        client.flushall()
