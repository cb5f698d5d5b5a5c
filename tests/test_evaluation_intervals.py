"""Confidence intervals: what textbooks and SciPy say, and what they refuse."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from evaluation_samples import sample
from scipy import stats

import reweigh as rw
from reweigh.core.terms import Terms, influence, totals
from reweigh.evaluation.intervals import (
    Evidence,
    bias_corrected_bootstrap,
    bootstrap,
    empirical_bernstein,
    hoeffding,
    normal,
    of_returns,
    student_t,
)

ASYMPTOTIC = (normal, student_t, bootstrap, bias_corrected_bootstrap)


def evidence(terms: Terms) -> Evidence:
    whole = totals(terms)
    return Evidence(float(whole.value), influence(terms, whole), lambda: [terms])


def mean_of(numbers) -> Evidence:
    """Evidence of a mean of returns that have weight 1."""
    return evidence(
        Terms(torch.as_tensor(np.asarray(numbers), dtype=torch.float64), maximum_weight=1.0)
    )


def skewed(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(0.7, 2.0, count)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_student_t_and_normal_are_scipys_where_the_variance_is_known_well(level):
    x = np.random.default_rng(0).uniform(size=17)
    spread = {"loc": x.mean(), "scale": stats.sem(x)}
    found = student_t(mean_of(x), level)
    assert found == pytest.approx(stats.t.interval(level, 16, **spread), rel=1e-12)
    assert normal(mean_of(x), level) == pytest.approx(
        stats.norm.interval(level, **spread), rel=1e-12
    )


def test_student_t_has_the_degrees_of_freedom_that_the_variance_has():
    x = skewed(17)
    freedom = 2 * 17 / (stats.kurtosis(x, fisher=False) - 1)
    assert 2 < freedom < 10
    expected = stats.t.interval(0.95, freedom, loc=x.mean(), scale=stats.sem(x))
    assert student_t(mean_of(x), 0.95) == pytest.approx(expected, rel=1e-12)
    for moved in (x + 1e3, 5 * x):
        again = student_t(mean_of(moved), 0.95)
        half = (again.high - again.low) / 2
        expected = stats.t.ppf(0.975, freedom) * stats.sem(moved)
        assert half == pytest.approx(expected, rel=1e-9)


def test_the_standard_error_of_a_ratio_is_that_of_the_jackknife():
    s = sample([1] * 200, 3)
    terms = rw.recipes.weighted_importance_sampling.terms(s)
    w = s.log_trajectory.exp().numpy()
    x = w * s.returns.numpy()
    left_out = np.array([np.delete(x, i).sum() / np.delete(w, i).sum() for i in range(200)])
    by_hand = math.sqrt(199 * left_out.var())
    assert evidence(terms).standard_error == pytest.approx(by_hand, rel=1e-10)
    # On many episodes of even weights it is that of the delta method.
    ratio = float(totals(terms).value)
    delta = math.sqrt(((x - ratio * w) ** 2).sum() / (len(w) * (len(w) - 1))) / w.mean()
    assert by_hand == pytest.approx(delta, rel=0.005)


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_bootstraps_of_a_ratio_are_scipys(method):
    s = sample([1] * 60, 5, spread=0.8)
    terms = rw.recipes.weighted_importance_sampling.terms(s)
    w = s.log_trajectory.exp().numpy()
    x = w * s.returns.numpy()
    theirs = stats.bootstrap(
        (x, w),
        lambda x, w, axis: x.sum(axis) / w.sum(axis),
        paired=True,
        vectorized=True,
        method=method,
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    ours = {"percentile": bootstrap, "BCa": bias_corrected_bootstrap}[method]
    found = ours(evidence(terms), 0.95, resamples=20_000)
    width = theirs.high - theirs.low
    assert found == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)


def test_bias_correction_moves_the_quantiles_of_a_skewed_mean():
    plain = bootstrap(mean_of(skewed(40)), 0.95)
    moved = bias_corrected_bootstrap(mean_of(skewed(40)), 0.95)
    assert moved.low > plain.low
    assert moved.high > plain.high


def test_hoeffding_of_ten_thousand_uniform_numbers_is_narrow():
    x = np.random.default_rng(0).uniform(size=10_000)
    low, high = hoeffding(mean_of(x), 0.95, lowest=0.0, highest=1.0)
    assert (high - low) / 2 == pytest.approx(math.sqrt(math.log(40) / 20_000), rel=1e-12)
    assert (high - low) / 2 < 0.0137


def test_empirical_bernstein_by_hand():
    low, high = empirical_bernstein(mean_of([0.0, 1.0, 1.0, 0.0]), 0.9, lowest=-1.0, highest=2.0)
    half = math.sqrt(2 * (1 / 3) * math.log(40) / 4) + 7 * 3 * math.log(40) / 9
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), rel=1e-12)


def test_terms_that_vary_little_favour_empirical_bernstein():
    x = 0.5 + 0.01 * np.random.default_rng(0).uniform(size=2000)
    wide = hoeffding(mean_of(x), 0.95, lowest=0.0, highest=1.0)
    narrow = empirical_bernstein(mean_of(x), 0.95, lowest=0.0, highest=1.0)
    assert wide.low < narrow.low < 0.505 < narrow.high < wide.high


@pytest.mark.parametrize("interval", ASYMPTOTIC)
def test_equal_terms_leave_no_doubt(interval):
    found = interval(mean_of([2.0] * 30), 0.95)
    assert found == pytest.approx((2.0, 2.0))


@pytest.mark.parametrize("interval", ASYMPTOTIC)
def test_a_higher_level_is_wider_and_holds_the_estimate(interval):
    for f in (rw.recipes.per_decision.terms, rw.recipes.weighted_per_decision.terms):
        told = evidence(f(sample([3, 5, 2, 4] * 20, 1)))
        inner, outer = interval(told, 0.8), interval(told, 0.99)
        assert outer.low < inner.low < told.value < inner.high < outer.high


def test_resampling_is_a_function_of_the_seed_alone():
    told = mean_of(skewed(30))
    torch.manual_seed(1)
    first = bootstrap(told, 0.95, seed=3)
    state = torch.random.get_rng_state()
    assert bootstrap(told, 0.95, seed=3) == first
    assert bootstrap(told, 0.95, seed=4) != first
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_single_episode_has_no_error():
    told = mean_of([3.0])
    assert math.isnan(told.standard_error)
    assert all(math.isnan(x) for x in (*student_t(told, 0.95), *normal(told, 0.95)))


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, math.nan])
@pytest.mark.parametrize("interval", ASYMPTOTIC)
def test_a_level_that_is_none(interval, level):
    with pytest.raises(ValueError, match=r"such as 0\.95, got"):
        interval(mean_of([1.0, 2.0]), level)


@pytest.mark.parametrize("interval", [hoeffding, empirical_bernstein])
def test_what_concentration_refuses(interval):
    bound = partial(interval, lowest=0.0, highest=1.0)
    with pytest.raises(ValueError, match=r"lie in \[0.2, 1.5\], outside the range \[0, 1\]"):
        bound(mean_of([0.2, 1.5]), 0.95)
    with pytest.raises(ValueError, match="use truncated_importance_sampling"):
        bound(evidence(rw.recipes.weighted_per_decision.terms(sample([2, 3]))), 0.95)
    with pytest.raises(ValueError, match="have no bound"):
        bound(evidence(Terms(torch.tensor([0.2, 0.5], dtype=torch.float64))), 0.95)
    with pytest.raises(ValueError, match="range from 1 to 0"):
        of_returns(interval, lowest=1.0, highest=0.0)
    with pytest.raises(ValueError, match=r"such as 0\.95"):
        bound(mean_of([0.2, 0.5]), 1.0)
    with pytest.raises(ValueError, match="at least 2 episodes"):
        empirical_bernstein(mean_of([0.5]), 0.95, lowest=0.0, highest=1.0)


def test_what_a_bootstrap_refuses():
    refitted = evidence(Terms(torch.tensor([1.0, 2.0], dtype=torch.float64), refitted=True))
    with pytest.raises(ValueError, match="use student_t"):
        bootstrap(refitted, 0.95)
    with pytest.raises(ValueError, match="resamples must be"):
        bootstrap(mean_of([1.0, 2.0]), 0.95, resamples=0)
    for interval in (bootstrap, bias_corrected_bootstrap):
        with pytest.raises(ValueError, match="2 episodes at least, got 1"):
            interval(mean_of([1.0]), 0.95)


def test_the_range_of_terms_follows_from_that_of_returns_and_the_largest_weight():
    s = sample([1] * 40, 3)
    s = replace(s, rewards=s.rewards.clamp(0.0, 2.0), discount=1.0)
    told = evidence(rw.recipes.truncated_importance_sampling.terms(s, maximum=3.0))
    found = of_returns(hoeffding, lowest=0.0, highest=2.0)(told, 0.95)
    assert found == hoeffding(told, 0.95, lowest=0.0, highest=6.0)
    own = evidence(rw.recipes.behaviour.terms(s))
    assert of_returns(hoeffding, lowest=0.0, highest=2.0)(own, 0.95) == hoeffding(
        own, 0.95, lowest=0.0, highest=2.0
    )


def test_rounding_does_not_move_the_bias_corrected_bootstrap():
    returns = np.random.default_rng(0).integers(-2, 3, 40)
    plain, moved = mean_of(returns), mean_of(returns)
    moved = replace(moved, value=np.nextafter(moved.value, np.inf))
    assert bias_corrected_bootstrap(plain, 0.95) == bias_corrected_bootstrap(moved, 0.95)
