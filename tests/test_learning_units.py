"""Rewards of any unit and any offset are learnt from alike."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from problems import improvable

from reweigh.data.batch import Batch
from reweigh.learning.config import LearnConfig
from reweigh.learning.critic import ValueFunction, unit_of
from reweigh.learning.learn import learn

PROBLEM = improvable(1, horizon=5)
LOG = PROBLEM.sample(600, seed=0)
PLAIN = {}


def outcome(estimator, factor=1.0, offset=0.0, discount=1.0):
    """Whether the gain is shown, of which epoch, and gain and bound in units of the rewards."""
    config = LearnConfig(
        hidden=(8,), minibatches=1, epochs=12, estimator=estimator, discount=discount
    )
    log = replace(LOG, rewards=factor * LOG.rewards + offset)
    learnt = learn(log, PROBLEM.behaviour_policy(), config=config)
    assert learnt.comparison is not None
    best = [epoch.epoch for epoch in learnt.progress if epoch.best]
    gain = learnt.comparison.gain.estimate
    return (learnt.shown, best), (gain.value / factor, gain.low / factor)


@pytest.mark.parametrize("estimator", ["weighted_doubly_robust", "weighted_per_decision", "ppo"])
@pytest.mark.parametrize(
    ("factor", "offset"),
    [(1e-6, 0.0), (1e-4, 3.0), (1e6, 0.0), (1.0, 1e9), (1e-6, -1.0), (1e6, 1e12)],
)
def test_what_is_learnt_does_not_depend_on_the_unit_of_the_rewards(estimator, factor, offset):
    for discount in (1.0, 0.9):
        key = estimator, discount
        if key not in PLAIN:
            PLAIN[key] = outcome(estimator, discount=discount)
        chosen, gains = outcome(estimator, factor, offset, discount)
        assert chosen == PLAIN[key][0]
        assert gains == pytest.approx(PLAIN[key][1], rel=1e-3)


def test_the_step_estimator_has_no_smallest_unit():
    assert outcome("ppo", 1e-12)[1] == pytest.approx(outcome("ppo")[1], rel=1e-3)


def critic_of(rewards, discount=0.9):
    batch = Batch.of(replace(LOG, rewards=rewards))
    return ValueFunction(batch, discount=discount, hidden=(8,), seed=0), batch


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e-30, 1e12])
def test_rewards_that_are_all_the_same_are_a_line_in_the_steps_left(constant):
    critic, batch = critic_of(np.full(LOG.steps, constant))
    torch.testing.assert_close(critic(batch), critic.targets(batch))
    assert critic.unit == 1.0
    assert critic.remaining(batch).abs().max() < 1e-3


def test_what_is_left_off_the_line_is_around_one():
    for factor in (1e-6, 1.0, 1e6):
        critic, batch = critic_of(factor * LOG.rewards + 3e3 * factor)
        left = critic.remaining(batch)
        assert float(left.mean()) == pytest.approx(0.0, abs=1e-6)
        assert float(left.std(correction=0)) == pytest.approx(1.0, rel=1e-6)


def test_episodes_longer_than_those_first_seen_have_values():
    critic, _ = critic_of(LOG.rewards)
    longer = Batch.of(replace(PROBLEM, horizon=9).sample(20, seed=0))
    values = critic(longer)
    assert values.isfinite().all()
    assert critic.horizon == 5 < longer.segments.most_steps


def test_the_unit_is_the_deviation_unless_that_is_rounding():
    numbers = torch.tensor([1.0, 3.0], dtype=torch.float64)
    assert unit_of(numbers, size=3.0) == 1.0
    assert unit_of(1e-100 * numbers, size=3e-100) == pytest.approx(1e-100, abs=0)
    assert unit_of(numbers, size=1e13) == 1.0
    assert unit_of(4 * numbers, size=1e11) == 4.0
    assert unit_of(4 * numbers, size=1e13) == 1.0
    assert unit_of(0 * numbers, size=0.0) == 1.0


def test_returns_that_differ_by_rounding_are_all_the_same():
    rewards = np.full(LOG.steps, 0.1)
    rewards[::7] += 1e-16
    assert len(np.unique(np.add.reduceat(rewards, LOG.start))) > 1
    with pytest.raises(ValueError, match="nothing tells a better action"):
        learn(replace(LOG, rewards=rewards), PROBLEM.behaviour_policy())
