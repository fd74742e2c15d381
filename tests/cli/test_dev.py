"""`askel dev`: the private server, the record of its address, and what survives its end."""

import stat

import pytest
from tests.helpers.cli import ASKEL, run_program
from tests.helpers.keys import sync_client
from tests.helpers.traces import Trace
from tests.helpers.waiting import wait_until
from tests.helpers.workers import WorkerProcess

KIOSK = "tests.apps.kiosk:app"
ORDER = '{"id": "o-1", "cents": 4200}'


@pytest.fixture
def place(tmp_path):
    """The folder that a person works in."""
    folder = tmp_path / "my shop é"
    folder.mkdir()
    return folder


@pytest.fixture
def here(place):
    """Call `askel` in that folder, without any variable that names a Redis."""
    return lambda *words, **env: run_program([ASKEL, *words], cwd=place, env=env)


@pytest.fixture
def dev(place, tmp_path):
    """Start `askel dev` in that folder."""

    def start(*words, **env):
        program, *rest = words or (KIOSK,)
        return WorkerProcess(
            program,
            redis_url="",
            prefix="workflows",
            directory=tmp_path,
            cwd=place,
            args=rest,
            command=(ASKEL, "dev"),
            env=env,
        )

    return start


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


async def test_other_verbs_find_it_in_its_folder_while_it_runs(dev, here, place, tmp_path):
    trace = Trace()
    record = place / ".askel" / "dev.url"
    async with dev(**trace.env) as process:
        await process.wait_ready()
        assert mode(record) == 0o600
        assert mode(place / ".askel") == 0o700
        assert (place / ".askel" / ".gitignore").read_text() == "*\n"
        greeting = process.stderr_path.read_text()
        assert f"private Redis at {record.read_text().strip()}\n" in greeting
        assert "askel run checkout" in greeting
        ran = here("run", "checkout", ORDER, "--run-id", "o-1", "--timeout", "20s")
        assert (ran.code, ran.json()["parcel"]) == (0, "parcel of o-1")
        elsewhere = run_program([ASKEL, "ls"], cwd=tmp_path)
        assert (elsewhere.code, "no Redis" in elsewhere.complaint) == (2, True)
        process.terminate()
        assert await process.wait() == 0
    assert not record.exists()
    assert trace.processes() == []
    ran = here("ls")
    assert (ran.code, "start one here with 'askel dev'" in ran.complaint) == (2, True)

    async with dev() as process:
        await process.wait_ready()
        assert [run["id"] for run in here("ls", "--json").json()["runs"]] == ["o-1"]


async def test_a_second_one_in_the_folder_is_refused_and_disturbs_nothing(dev, here, place):
    async with dev() as process:
        await process.wait_ready()
        url = (place / ".askel" / "dev.url").read_text()
        ran = here("dev", KIOSK)
        assert ran.code == 1
        assert ran.complaint.startswith(f"askel dev: {place}/.askel/redis is in use")
        assert (place / ".askel" / "dev.url").read_text() == url
        assert here("ls").out == "no runs\n"


async def test_killed_it_leaves_no_server_and_loses_nothing(dev, here, place):
    trace = Trace()
    gate = place / "gate"
    async with dev(**trace.env) as process:
        await process.wait_ready()
        assert here("start", "waits", f'"{gate}"', "--run-id", "r-1").code == 0
        await wait_until((place / "gate.begun").exists)
        assert here("run", "checkout", ORDER, "--run-id", "o-1").code == 0
        process.kill()
        assert await process.wait() == -9
    await wait_until(lambda: not trace.processes(), message=lambda: str(trace.processes()))
    ran = here("ls")
    assert (ran.code, "is gone" in ran.complaint) == (2, True)

    gate.touch()
    async with dev() as process:
        await process.wait_ready()
        await wait_until(lambda: '"completed"' in here("show", "r-1", "--json").out, 20)
        statuses = [entry["status"] for entry in here("history", "r-1", "--json").json()[1:-1]]
        assert statuses == ["running", "lost", "running", "succeeded"]
        assert (place / "gate.begun").read_text() == "xx"
        assert {run["id"] for run in here("ls", "--json").json()["runs"]} == {"r-1", "o-1"}


@pytest.mark.parametrize("name", ["REDIS_URL", "ASKEL_REDIS_URL", "REDIS_URL_FILE", "flag"])
async def test_a_redis_that_is_named_is_used(dev, here, place, tmp_path, own_server, name):
    url, words, env = own_server.url, (KIOSK,), {}
    if name == "flag":
        words = (KIOSK, "--redis", url)
    elif name == "REDIS_URL_FILE":
        env = {name: str(_secret(tmp_path, url))}
    else:
        env = {name: url}
    async with dev(*words, "--prefix", "named", **env) as process:
        await process.wait_ready()
        assert "in another terminal, with the same Redis" in process.stderr_path.read_text()
        assert here("run", "checkout", ORDER, "--prefix", "named", "--redis", url).code == 0
        process.terminate()
        assert await process.wait() == 0
    assert list(place.iterdir()) == []
    with sync_client(url) as redis:
        assert redis.exists("named:runs")
        redis.flushall()


def _secret(folder, url):
    path = folder / "secret"
    path.write_text(f"{url}\n")
    return path


async def test_a_lease_that_is_given_is_taken_with_what_fits_it(dev):
    async with dev(KIOSK, "--lease", "5s") as process:
        await process.wait_ready()


async def test_without_an_app_it_serves_the_example(place, tmp_path, here):
    async with WorkerProcess(
        "dev",
        redis_url="",
        prefix="workflows",
        directory=tmp_path,
        cwd=place,
        command=(ASKEL,),
    ) as process:
        assert (await process.wait_ready())["app"] == "onboarding"
        ran = here("run", "onboarding", '{"email": "a@b.c"}', "--timeout", "20s")
        assert ran.code == 0, ran
        assert ran.json()["message"] == "welcome mail sent to a@b.c"
