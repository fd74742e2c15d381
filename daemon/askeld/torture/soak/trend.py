"""Whether a series of measurements grows: by its thirds and by its slope, which must agree.

Outliers are the rule here (a server that restarts, a worker that is stopped), so nothing is
averaged: thirds are told by their medians, and the slope is Theil's and Sen's, the median of the
slopes between all pairs of points.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from statistics import median

import msgspec

#: Fewer points say nothing.
LEAST_POINTS = 9
#: Beyond so many, neighbours are put together first, by their medians.
_MOST_POINTS = 180
_PARTS = 12
_HOUR_S = 3_600.0
#: From the middle of the first third to the middle of the last.
_BETWEEN_THIRDS = 2 / 3

Point = tuple[float, float]
"""When (in seconds), and how much."""


class Limit(msgspec.Struct, frozen=True):
    """How much more the last third may be than the first before that is growth.

    The larger of the two counts: *absolute* in the unit of the series, *relative* to its first
    third.
    """

    absolute: float
    relative: float = 0.0


class Trend(msgspec.Struct, frozen=True):
    """What became of one series between the end of the warm-up and the end of the load.

    Args:
        name: Of the series.
        unit: Of all that follows, ``per_hour`` apart.
        first: Median of the first third.
        last: Median of the last third.
        per_hour: Slope, in units per hour.
        allowed: How much the last third may exceed the first, and the slope amount to over that
            time. Only what exceeds it both ways is growing.
        verdict: ``flat``, ``growing``, or ``unknown`` with too few points.
        course: Medians of twelve parts, in order.
    """

    name: str
    unit: str
    first: float
    last: float
    per_hour: float
    allowed: float
    verdict: str
    course: list[float]


def trend(name: str, unit: str, points: Sequence[Point], limit: Limit) -> Trend:
    """Return what became of the series *points*, which are in order of time."""
    if len(points) < LEAST_POINTS:
        return Trend(name, unit, 0.0, 0.0, 0.0, limit.absolute, "unknown", [])
    third = len(points) // 3
    first = median(value for _, value in points[:third])
    last = median(value for _, value in points[-third:])
    slope = _slope(_thinned(points, _MOST_POINTS))
    allowed = max(limit.absolute, limit.relative * abs(first))
    by_slope = slope * (points[-1][0] - points[0][0]) * _BETWEEN_THIRDS
    is_growing = last - first > allowed and by_slope > allowed
    course = [round(value, 3) for _, value in _thinned(points, _PARTS)]
    verdict = "growing" if is_growing else "flat"
    return Trend(
        name,
        unit,
        round(first, 3),
        round(last, 3),
        round(slope * _HOUR_S, 3),
        round(allowed, 3),
        verdict,
        course,
    )


def _slope(points: Sequence[Point]) -> float:
    slopes = [(b - a) / (t - s) for (s, a), (t, b) in combinations(points, 2) if t > s]
    return median(slopes) if slopes else 0.0


def _thinned(points: Sequence[Point], most: int) -> Sequence[Point]:
    """Return at most *most* points, each the medians of some neighbours."""
    if len(points) <= most:
        return points
    edges = [len(points) * part // most for part in range(most + 1)]
    parts = (points[begin:end] for begin, end in pairwise(edges))
    return [(median(t for t, _ in part), median(v for _, v in part)) for part in parts]
