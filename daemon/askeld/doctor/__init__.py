"""What ``askel doctor`` does: it gathers facts once; pure checks judge them and say what to do."""

from askeld.doctor.checks import CHECKS, examine
from askeld.doctor.facts import Facts
from askeld.doctor.finding import Finding, Level
from askeld.doctor.gathering import gather

__all__ = ["CHECKS", "Facts", "Finding", "Level", "examine", "gather"]
