"""The numbers of an estimate as a person reads them."""

import math
from collections.abc import Sequence

from reweigh.evaluation.estimates import Estimate
from reweigh.report.wording import percent

_MOST_DECIMALS, _LARGE = 6, 1e7
"""Beyond these, powers of ten are easier to read."""


def heads(level: float) -> tuple[str, ...]:
    """Return what `row` writes."""
    return "value", "SE", f"{percent(level)} interval", "ESS", "share", "k-hat"


def row(estimate: Estimate, decimals: int) -> tuple[str, ...]:
    """Write all numbers of an estimate."""
    return (
        figure(estimate.value, decimals),
        error(estimate.standard_error, decimals),
        span(estimate, decimals),
        *size(estimate),
        tail(estimate),
    )


def tail(estimate: Estimate) -> str:
    """Write k-hat, or that the largest weights are too much alike, or too few, to fit a tail."""
    return "none" if estimate.k_hat == math.inf else figure(estimate.k_hat, 2)


def decimals_for(errors: Sequence[float], values: Sequence[float]) -> int:
    """Return how many decimals matter: two figures of the least error.

    Where there are no errors, four figures of the least value.
    """
    for scales in (errors, [abs(x) / 100 for x in values]):
        usable = [x for x in scales if 0 < x < math.inf]
        if usable:
            return min(max(1 - math.floor(math.log10(min(usable))), 0), _MOST_DECIMALS)
    return 2


def figure(value: float, decimals: int) -> str:
    """Write a value with so many decimals; - for NaN, and powers of ten where decimals fail."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return f"{value:g}"
    tiny = decimals == _MOST_DECIMALS and 0 < abs(value) < 100 * 10**-_MOST_DECIMALS
    if abs(value) >= _LARGE or tiny:
        return f"{value:.2e}"
    return f"{round(value, decimals) + 0.0:,.{decimals}f}"


def error(value: float, decimals: int) -> str:
    """Write a standard error as `figure` does, but never rounded to nothing."""
    lost = 0 < value < 0.5 * 10**-decimals
    return f"{value:.1e}" if lost else figure(value, decimals)


def with_error(estimate: Estimate, decimals: int) -> str:
    """Write a value with its standard error, if it has one."""
    value = figure(estimate.value, decimals)
    if math.isnan(estimate.standard_error):
        return value
    return f"{value} ± {error(estimate.standard_error, decimals)}"


def span(estimate: Estimate, decimals: int) -> str:
    """Write an interval."""
    if math.isnan(estimate.low) and math.isnan(estimate.high):
        return "-"
    return f"{figure(estimate.low, decimals)} to {figure(estimate.high, decimals)}"


def size(estimate: Estimate) -> tuple[str, str]:
    """Write the effective sample size and its share of the weights; - without weights."""
    if math.isnan(estimate.effective_sample_size):
        return "-", "-"
    share = estimate.effective_sample_size / estimate.weights if estimate.weights else math.nan
    effective = estimate.effective_sample_size
    text = f"{effective:,.0f}" if effective >= 100 else f"{effective:.3g}"
    return text, "-" if math.isnan(share) else f"{share:.1%}"


def unit(estimate: Estimate) -> str:
    """Name what has the weights of an estimate: episodes, or steps."""
    return "steps" if estimate.weights > estimate.episodes else "episodes"
