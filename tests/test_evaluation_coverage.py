"""Intervals hold the value as often as they say: a smaller run of benchmarks/coverage.py."""

import interval_coverage as coverage
import numpy as np
import pytest
from problems import ending

import reweigh as rw
from reweigh.data import Batch

LOGS = range(300)
CHOSEN = ("behaviour", "per_decision", "weighted_per_decision", "truncated_importance_sampling")
SPREAD = 2.6 * np.sqrt(0.95 * 0.05 / len(LOGS))  # of the share that 300 logs show


@pytest.fixture(scope="module", params=[50, 500])
def shares(request):
    measured = coverage.measure("Ending", request.param, LOGS, chosen=CHOSEN, resamples=200)
    return request.param, {
        key: coverage.summary("Ending", request.param, *key, rows) for key, rows in measured.items()
    }


def test_asymptotic_intervals_hold_it_in_95_of_100(shares):
    episodes, found = shares
    seen = 0
    for (estimator, interval), row in found.items():
        if estimator != "truncated_importance_sampling":
            # A bootstrap of 200 resamples, or of 50 episodes, is a little short.
            slack = 0.03 if "bootstrap" in interval and episodes == 50 else 0.01
            assert 0.95 - SPREAD - slack < row.covered < 0.95 + SPREAD + 0.01, row
            assert row.logs == 300
            seen += 1
    assert seen == 8


def test_concentration_intervals_hold_it_in_95_of_100_at_least(shares):
    _, found = shares
    for interval in ("hoeffding", "empirical_bernstein"):
        assert found["truncated_importance_sampling", interval].covered >= 0.95


def test_intervals_become_narrower_by_the_root_of_the_episodes():
    widths = [
        np.median(
            np.diff(coverage.measure("Ending", n, range(40), chosen=("behaviour",))[key][:, :2])
        )
        for n in (50, 200)
        for key in [("behaviour", "normal")]
    ]
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.1)


def test_returns_and_weights_reach_their_bounds_and_not_beyond():
    problem = ending(states=2, actions=2, horizon=3)
    lowest, highest = coverage.return_range(problem)
    batch = Batch.of(problem.sample(50_000, seed=0))
    sample = rw.sample_of(batch, problem.policy(), discount=problem.discount)
    assert float(sample.returns.min()) == pytest.approx(lowest)
    assert float(sample.returns.max()) == pytest.approx(highest)
    largest = coverage.largest_weight(problem)
    assert float(sample.log_trajectory.max().exp()) == pytest.approx(largest)
