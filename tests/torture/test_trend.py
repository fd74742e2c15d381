"""What grows is told from what only moves, restarts or warms up."""

import random

import pytest

from askeld.torture.soak.trend import LEAST_POINTS, Limit, trend

HOUR_S = 3_600.0


def told(values, limit, every_s=5.0):
    points = [(number * every_s, float(value)) for number, value in enumerate(values)]
    return trend("a series", "MB", points, limit)


def noisy(slope, count=360, noise=1.0):
    dice = random.Random(3)
    return [40 + slope * n + dice.uniform(-noise, noise) for n in range(count)]


def test_a_line_with_noise_is_flat():
    found = told(noisy(0.0), Limit(2.0))

    assert found.verdict == "flat"
    assert abs(found.per_hour) < 1.0


def test_a_slow_leak_grows_and_its_slope_is_told():
    found = told(noisy(0.02), Limit(2.0))

    assert found.verdict == "growing"
    assert found.per_hour == pytest.approx(0.02 * HOUR_S / 5, rel=0.1)
    assert found.last - found.first == pytest.approx(0.02 * 360 * 2 / 3, rel=0.2)
    assert found.course == sorted(found.course)
    assert len(found.course) == 12


def test_outliers_are_no_growth():
    values = noisy(0.0)
    values[250::9] = [400.0] * len(values[250::9])

    assert told(values, Limit(2.0)).verdict == "flat"


def test_a_server_that_restarts_again_and_again_and_leaks_between_is_found():
    """Each restart takes back half of what had leaked since the last."""
    values = [40 + n * 0.1 - 0.05 * 60 * (n // 60) for n in range(360)]

    assert told(values, Limit(2.0)).verdict == "growing"


def test_a_step_within_the_limit_is_flat_and_one_beyond_it_grows():
    low, high = [40.0] * 100, [46.0] * 100

    assert told(low + high, Limit(7.0)).verdict == "flat"
    assert told(low + high, Limit(1.0, 0.2)).verdict == "flat"  # a fifth of 40 is 8
    assert told(low + [40.0] * 50 + high, Limit(2.0)).verdict == "flat"  # no slope: it stays
    assert told([*range(40, 140)], Limit(5.0)).verdict == "growing"


def test_what_shrinks_does_not_grow():
    found = told(noisy(-0.05), Limit(1.0))

    assert found.verdict == "flat"
    assert found.per_hour < 0


def test_few_points_say_nothing():
    assert told([1.0] * (LEAST_POINTS - 1), Limit(1.0)).verdict == "unknown"
    assert told([1.0] * LEAST_POINTS, Limit(1.0)).verdict == "flat"
