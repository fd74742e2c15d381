"""A worker whose login is taken away while it works, or whose password is rotated."""

import json

import pytest
from tests.helpers.keys import delete_all, sync_client
from tests.helpers.waiting import wait_until
from tests.helpers.workers import WorkerProcess

from askeld.embedded import EmbeddedServer

APP = "tests.apps.parts:app"
PREFIX = "login"


@pytest.fixture
def guarded():
    with (
        EmbeddedServer(port=0, options={"appendonly": "no"}) as server,
        sync_client(server.url) as admin,
    ):
        admin.execute_command("ACL", "SETUSER", "worker", "on", ">0ld", "~*", "+@all")
        yield server, admin
        delete_all(admin)


def send(admin, run_id):
    fields = {"type": "run.start", "workflow": "one_step", "input": json.dumps(run_id)}
    admin.xadd(f"{PREFIX}:commands", {**fields, "run_id": run_id})


def kick(admin):
    admin.execute_command("CLIENT", "KILL", "USER", "worker")


async def completed(admin, run_id):
    await wait_until(
        lambda: admin.hget(f"{PREFIX}:run:{run_id}", "status") == b"completed", timeout=20
    )


@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
async def test_worker_whose_login_is_refused_ends_with_one_line(guarded, tmp_path, busy):
    server, admin = guarded
    url = f"redis://worker:0ld@127.0.0.1:{server.port}"
    async with WorkerProcess(APP, redis_url=url, prefix=PREFIX, directory=tmp_path) as worker:
        await worker.wait_ready()
        admin.execute_command("ACL", "SETUSER", "worker", "off")
        if busy:
            send(admin, "r1")
        kick(admin)

        assert await worker.wait() == 1

        said = worker.stderr_path.read_text().splitlines()[-1]
        assert said.startswith("askel worker: WRONGPASS Redis at 127.0.0.1:")
        assert "0ld" not in worker.output()
        assert admin.xlen(f"{PREFIX}:dead") == 0

        admin.execute_command("ACL", "SETUSER", "worker", "on")
        if not busy:
            send(admin, "r1")
        args = {"redis_url": url, "prefix": PREFIX, "directory": tmp_path}
        async with WorkerProcess(APP, **args) as second:
            await second.wait_ready()
            await completed(admin, "r1")


async def test_worker_goes_on_with_the_rotated_password(guarded, tmp_path):
    server, admin = guarded
    secret = tmp_path / "password"
    secret.write_text("0ld\n")
    async with WorkerProcess(
        APP,
        redis_url=f"redis://worker@127.0.0.1:{server.port}",
        prefix=PREFIX,
        directory=tmp_path,
        env={"REDIS_PASSWORD_FILE": str(secret)},
    ) as worker:
        await worker.wait_ready()
        admin.execute_command("ACL", "SETUSER", "worker", ">n3w")
        secret.write_text("n3w\n")
        admin.execute_command("ACL", "SETUSER", "worker", "<0ld")
        kick(admin)
        send(admin, "r1")

        await completed(admin, "r1")
        worker.terminate()
        assert await worker.wait() == 0
