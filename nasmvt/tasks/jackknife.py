"""Intervals for differences of metrics: the delete-a-group jackknife over images, and Student's t over seeds.

A metric such as mAP is no mean over images, but it can be computed again without some of them. The images are divided
into groups, and the spread of the values without one group each tells how far the value on all of them may be off
(Kott, Journal of Official Statistics 2001; Efron & Tibshirani, An Introduction to the Bootstrap, chapter 11). Where two
networks are measured on the same images, the differences are computed group by group, so that what is hard for both
cancels.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, variance

GROUPS = 20
"""Groups of images."""

_T95 = [
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093),
]
"""Quantiles 0.975 of Student's distribution with 1 to 19 degrees of freedom."""


def interval(differences: Sequence[float], without: Sequence[float]) -> tuple[float, float, float]:
    """Return a difference and the ends of its 95 % interval.

    Args:
        differences: with each training seed, on all images; one or more.
        without: their mean without each group of images.
    """
    middle, groups, seeds = fmean(differences), len(without), len(differences)
    spread = (groups - 1) ** 2 / groups * variance(without)
    freedom = groups - 1
    if seeds > 1:
        spread += variance(differences) / seeds
        freedom = min(freedom, seeds - 1)
    half = _T95[min(freedom, len(_T95)) - 1] * sqrt(spread)
    return middle, middle - half, middle + half
