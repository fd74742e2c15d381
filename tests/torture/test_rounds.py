"""Rounds: each on its own, one after the other, and all of them in one report."""

import pytest
from tests.torture.reports import without

from askeld.torture import rounds
from askeld.torture.config import TortureConfig
from askeld.torture.rounds import MAX_SEED, run_rounds, seed_of


@pytest.fixture
def campaigns(monkeypatch):
    """Stand in for whole campaigns: note what each is to be; seed 13 dies, seed 7 breaks."""
    noted = []

    async def run_campaign(config, show, *, control, binary):
        assert config.directory.is_dir()
        noted.append((config.seed, config.prefix, config.directory.name, control))
        if config.seed == 13:
            raise ExceptionGroup("tasks", [OSError("the disk\nis full")])
        lost = 1 if config.seed == 7 else 0
        return without(seed=config.seed, lost=lost, control=None)

    monkeypatch.setattr(rounds, "run_campaign", run_campaign)
    return noted


def config(tmp_path, seed):
    return TortureConfig(directory=tmp_path, seed=seed, prefix="p")


async def run(config, count, **given):
    lines = []
    report = await run_rounds(config, count, print, tell=lines.append, **given)
    return report, lines


def test_the_first_seed_is_the_one_given_and_all_can_be_given_again():
    assert [seed_of(5, n) for n in (1, 2, 3)] == [5, 6, 7]
    assert [seed_of(MAX_SEED, n) for n in (1, 2)] == [MAX_SEED, 0]


async def test_each_round_has_seed_prefix_and_folder_of_its_own(tmp_path, campaigns):
    report, lines = await run(config(tmp_path, 6), 3)

    assert campaigns == [
        (6, "p-1", "round-1", True),
        (7, "p-2", "round-2", False),
        (8, "p-3", "round-3", False),
    ]
    assert [one.verdict for one in report.rounds] == [
        "nothing broke",
        "promises were broken",
        "nothing broke",
    ]
    assert lines[2:4] == [
        "round 2 of 3, seed 7 begins",
        "round 2 of 3, seed 7 ended: promises were broken; 10 runs, 9 deaths, 1 s",
    ]
    assert list(tmp_path.iterdir()) == []


async def test_folders_stay_where_they_are_to_be_kept(tmp_path, campaigns):
    await run(config(tmp_path, 1), 2, keep=True, control=False)

    assert {path.name for path in tmp_path.iterdir()} == {"round-1", "round-2"}
    assert [control for *_, control in campaigns] == [False, False]


async def test_a_round_that_dies_takes_no_other_with_it(tmp_path, campaigns):
    report, lines = await run(config(tmp_path, 12), 3)

    said = "round 2 of 3, seed 13 was not brought to its end: OSError: the disk"
    assert len(campaigns) == 2
    assert (report.runs, report.failures) == (10, [said])
    assert [one.seed for one in report.rounds] == [12, 13]
    assert lines[-1] == said
    assert not report.is_good


async def test_a_first_round_that_dies_is_an_error(tmp_path, campaigns):
    with pytest.raises(ExceptionGroup):
        await run(config(tmp_path, 13), 3)
