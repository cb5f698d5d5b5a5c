"""The gain on the behaviour, its bound, and the test that rests on it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from problems import ending, linear_quadratic
from simulated import tabular_policy

import reweigh as rw
from reweigh.core.diagnostics import doubts, read, weight_health
from reweigh.core.terms import influence, totals
from reweigh.data.episodes import InMemory, Shares
from reweigh.evaluation.logged import Logged
from reweigh.learning.critic import ValueFunction, fitted_critic
from reweigh.learning.division import Division
from reweigh.learning.improvement import (
    Comparison,
    Gain,
    as_if,
    compare,
    expected_doubts,
    gain,
    improvement,
    judge,
    least,
    predicted_bound,
    weight_doubts,
    within_a_sentence,
)
from reweigh.recipes.values import weighted_doubly_robust

PROBLEM = ending(horizon=6)
DISCOUNT = PROBLEM.discount
LOG = PROBLEM.sample(600, seed=0)
ALL = Division.of(InMemory(LOG), Shares(0.2, 0.4, 0), steps=LOG.steps).test
LOGS = [Logged.of(batch, PROBLEM.policy(), discount=DISCOUNT) for batch in ALL.batches()]


def found(policy=None, level=0.95):
    policy = PROBLEM.policy() if policy is None else policy
    return compare(ALL, policy, None, discount=DISCOUNT, level=level)


def test_the_gain_is_the_difference_of_the_two_estimates():
    compared = found()
    both = compared.learnt.value - compared.behaviour.value
    assert compared.gain.estimate.value == pytest.approx(both, abs=1e-12)
    sample = LOGS[0].sample
    parts = (
        rw.recipes.weighted_per_decision.terms(sample),
        rw.recipes.behaviour.terms(sample),
    )
    contributions = [influence(terms, totals(terms)) for terms in parts]
    difference = contributions[0] - contributions[1]
    error = float(difference.std()) / math.sqrt(len(sample))
    assert compared.gain.estimate.standard_error == pytest.approx(error, rel=1e-9)
    assert compared.gain == gain(ALL, PROBLEM.policy(), None, discount=DISCOUNT, level=0.95)


def test_what_both_share_is_no_part_of_the_difference():
    compared = found()
    apart = math.hypot(compared.learnt.standard_error, compared.behaviour.standard_error)
    assert compared.gain.estimate.standard_error < 0.9 * apart


def test_the_behaviour_gains_nothing_on_itself_without_any_error():
    same = found(PROBLEM.behaviour_policy()).gain.estimate
    assert same.value == pytest.approx(0.0, abs=1e-12)
    assert same.standard_error == pytest.approx(0.0, abs=1e-12)


def test_bounds_are_one_sided():
    compared = found()
    sample = LOGS[0].sample
    estimate = compared.gain.estimate
    assert estimate.level == pytest.approx(0.9)
    # Student's 95 % quantile is 1.65 at so many degrees of freedom, and at fewer it is larger.
    t = (estimate.value - estimate.low) / estimate.standard_error
    assert 1.65 < t < 1.75
    assert estimate.episodes == len(sample)
    wider = found(level=0.99).gain.estimate
    assert wider.low < estimate.low


def test_parts_of_a_log_give_the_numbers_of_the_whole():
    whole = found()
    shares = Shares(0.2, 0.4, 0)
    parts = Division.of(InMemory(LOG), shares, steps=LOG.steps, at_once=150).test
    assert len(list(parts.batches())) > 5
    again = compare(parts, PROBLEM.policy(), None, discount=DISCOUNT, level=0.95)
    for one, other in (
        (again.gain.estimate, whole.gain.estimate),
        (again.behaviour, whole.behaviour),
        (again.learnt, whole.learnt),
    ):
        for name in ("value", "standard_error", "low", "episodes", "k_hat"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), nan_ok=True)
    assert again.gain.weights.mean == pytest.approx(whole.gain.weights.mean)
    assert again.gain.weights.standard_error == pytest.approx(whole.gain.weights.standard_error)
    assert again.gain.returns == pytest.approx(whole.gain.returns)


def test_the_range_of_the_returns_is_that_of_the_sample():
    returns = torch.cat([log.sample.returns for log in LOGS])
    assert found().gain.returns == pytest.approx(float(returns.max() - returns.min()))


# ------------------------------------------------------------------ the verdict


def made(*, value=1.0, low=0.5, high=1.5, returns=10.0, weights=None, level=0.95):
    """A comparison on 1000 episodes, the behaviour's value being 5 with bounds at 4.8 and 5.2."""
    estimate = replace(found().gain.estimate, value=value, low=low, high=high, episodes=1000)
    weights = torch.zeros(1000, dtype=torch.float64) if weights is None else weights
    return Comparison(
        level=level,
        behaviour=replace(estimate, value=5.0, low=4.8, high=5.2),
        learnt=replace(estimate, value=5.0 + value, low=5.0 + low, high=5.0 + high),
        gain=Gain(estimate, read(weight_health(weights)).total, returns),
    )


def test_an_improvement_is_shown_if_its_lower_bound_is_above_nothing():
    verdict = judge(made())
    assert verdict.shown
    assert verdict.words.startswith("improvement shown at 95 %: +1 on the behaviour's 5")
    assert "at least +0.5, on 1000 episodes" in verdict.words
    for low in (0.0, -0.1, math.nan):
        verdict = judge(made(low=low))
        assert not verdict.shown
        assert verdict.words.startswith("no improvement shown at 95 %: +1")
    assert judge(made(level=0.99)).words.startswith("improvement shown at 99 %")


def test_the_stricter_test_compares_bounds_of_both():
    assert judge(made(low=0.21), upper_bound=True).shown
    weak = made(low=0.19)
    assert judge(weak).shown
    verdict = judge(weak, upper_bound=True)
    assert not verdict.shown
    assert "5.19, is not above the behaviour's upper bound, 5.2" in verdict.words


def test_what_may_be_due_to_what_never_happened_is_no_improvement():
    gain_, episodes = made().gain, 1000
    assert least(gain_, episodes, level=0.95) == pytest.approx(10 * math.log(20) / 1000)
    assert least(gain_, 2 * episodes, level=0.95) == pytest.approx(10 * math.log(20) / 2000)
    assert least(gain_, episodes, level=0.99) > least(gain_, episodes, level=0.95)
    assert judge(made(value=0.031, low=0.03)).shown
    verdict = judge(made(value=0.029, low=0.028))
    assert not verdict.shown
    assert "none below 0.03" in verdict.words


def test_an_estimate_that_cannot_be_believed_shows_nothing():
    heavy = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    verdict = judge(made(weights=4 * heavy))
    assert not verdict.shown
    assert "k-hat" in verdict.words


def lottery(turned: float):
    """Half of the episodes pay; where they do not, a share `turned` of the actions is unlogged."""
    weights = np.repeat([0.0, math.log(1 - turned)], 400)
    return torch.from_numpy(weights)


@pytest.mark.parametrize("turned", [0.9, 0.2, 1e-3, 1e-7])
def test_a_policy_that_turns_to_actions_that_are_not_logged_is_doubted(turned):
    """Its weights are even, and its self-normalised estimate is as good as it is wrong."""
    log_weights = lottery(turned)
    reading = read(weight_health(log_weights)).total
    assert turned == 0.2 or not doubts(reading, unit="episodes")
    exact = float(log_weights.expm1().std()) / math.sqrt(800)
    (doubt,) = weight_doubts(replace(reading, standard_error=exact))
    assert "takes actions that the log does not hold" in doubt


def test_the_error_of_the_mean_weight_is_exact_where_all_weights_are_near_one():
    probabilities = PROBLEM.behaviour.copy()
    probabilities[0] *= [1 + 1e-9, 1 - 1e-9, 1]
    (log,) = LOGS
    policy = tabular_policy(probabilities)
    own = compare(ALL, policy, None, discount=DISCOUNT, level=0.95).gain.weights.standard_error
    weights = rw.sample_of(log.batch, policy, discount=DISCOUNT).log_trajectory
    assert own == pytest.approx(float(weights.expm1().std()) / math.sqrt(len(weights)), rel=1e-6)
    assert 1e-12 < own < 1e-8


def test_weights_as_they_are_meant_raise_no_doubt():
    assert weight_doubts(found().gain.weights) == ()
    assert weight_doubts(found(PROBLEM.behaviour_policy()).gain.weights) == ()


# ------------------------------------------------------------------ what is expected of the test


def test_the_predicted_bound_has_the_margin_of_so_many_episodes():
    estimate = made(value=1.0, low=0.5).gain.estimate
    assert predicted_bound(estimate, 1000) == pytest.approx(0.5)
    assert predicted_bound(estimate, 4000) == pytest.approx(0.75)
    assert predicted_bound(estimate, 250) == pytest.approx(0.0)


def test_weights_are_read_as_if_there_were_so_many():
    reading = found().gain.weights
    twice = as_if(reading, 2 * reading.sample_size)
    assert twice.ess_share == pytest.approx(reading.ess_share)
    assert twice.effective_sample_size == pytest.approx(2 * reading.effective_sample_size)
    assert twice.k_hat_threshold > reading.k_hat_threshold
    assert twice.mean == reading.mean
    uneven = torch.log(torch.tensor([0.4] * 300 + [2.8] * 100, dtype=torch.float64))
    reading = read(weight_health(uneven)).total
    assert reading.ess_share < 0.6
    assert weight_doubts(reading) == ()
    (doubt,) = weight_doubts(as_if(reading, 60))
    assert "effective sample size" in doubt


def test_expected_doubts_are_those_of_a_third_fewer():
    uneven = torch.log(torch.tensor([0.4] * 300 + [2.8] * 100, dtype=torch.float64))
    reading = read(weight_health(uneven)).total
    for episodes, few in ((160, False), (150, True), (110, True)):
        assert bool(weight_doubts(as_if(reading, episodes * 2 // 3))) == few
        assert bool(expected_doubts(reading, episodes)) == few
        assert not weight_doubts(as_if(reading, episodes))


def test_a_doubt_is_said_within_a_sentence():
    heavy = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.cat([4 * heavy[:300], -9 + torch.zeros(700, dtype=torch.float64)])
    words = judge(made(weights=weights)).words
    assert ", but the effective sample size is " in words or ", but the mean weight is " in words
    assert within_a_sentence("The mean is 0.5.") == "the mean is 0.5"


def test_terms_of_a_gain_are_those_of_the_estimate_less_the_returns():
    sample = LOGS[0].sample
    values = torch.linspace(-1, 1, len(sample.rewards), dtype=torch.float64)
    terms, plain = improvement(sample, values), weighted_doubly_robust.terms(sample, values, values)
    torch.testing.assert_close(terms.plain, plain.plain - sample.returns)
    assert terms.weighted is not None
    assert plain.weighted is not None
    torch.testing.assert_close(terms.weighted.values, plain.weighted.values)


# ------------------------------------------------------------------ the value function


def parts_of(log):
    found = Division.of(InMemory(log), Shares(0.2, 0.4, 0), steps=log.steps)
    return found.training, found.validation, found.test


def test_values_leave_less_to_chance_and_do_not_move_the_estimate():
    problem = linear_quadratic()
    training, validation, test = parts_of(problem.sample(1500, seed=0))
    critic = fitted_critic(training, validation, discount=problem.discount, hidden=(32,), seed=0)
    policy = problem.policy()
    plain, robust = (
        gain(test, policy, each, discount=problem.discount, level=0.95).estimate
        for each in (None, critic)
    )
    assert robust.standard_error < 0.7 * plain.standard_error
    assert abs(robust.value - plain.value) < 3 * plain.standard_error
    truth = problem.value() - problem.behaviour_value()
    assert abs(robust.value - truth) < 3 * robust.standard_error
    same = gain(
        test, problem.behaviour_policy(), critic, discount=problem.discount, level=0.95
    ).estimate
    assert same.value == pytest.approx(0.0, abs=1e-9)
    assert same.standard_error == pytest.approx(0.0, abs=1e-9)


def test_the_value_function_knows_state_and_time():
    """What is left of an episode of six steps that pay their state's number each."""
    log = PROBLEM.sample(600, seed=1)
    log = replace(log, rewards=log.observations.astype(np.float64))
    training, validation, test = parts_of(log)
    critic = fitted_critic(training, validation, discount=1.0, hidden=(16,), seed=0)
    (batch,) = test.batches()
    left = batch.segments.remaining
    values, targets = critic(batch), critic.targets(batch)
    assert values.dtype == torch.float64
    assert not values.requires_grad
    unexplained = (values - targets).square().mean() / targets.var()
    assert unexplained < 0.7
    early = values[left > 3].mean() - values[left == 0].mean()
    assert early > 3
    again = fitted_critic(training, validation, discount=1.0, hidden=(16,), seed=0)
    assert torch.equal(again(batch), values)


def test_the_value_function_knows_what_time_alone_tells():
    """Three are earned at step 1 and lost at step 3: no line in the steps left, and no state."""
    log = PROBLEM.sample(600, seed=1)
    time = np.arange(log.steps) - np.repeat(log.start, log.lengths)
    log = replace(log, rewards=np.select([time == 1, time == 3], [3.0, -3.0], 0.0))
    training, validation, test = parts_of(log)
    critic = fitted_critic(training, validation, discount=1.0, hidden=(64, 64), seed=0)
    (batch,) = test.batches()
    targets = critic.targets(batch)
    assert (critic(batch) - targets).square().mean() < 0.5 * targets.var()


def test_a_value_function_that_would_know_returns_by_heart_stops_before():
    """Returns that are chance alone: their mean is the best that can be said."""
    log = PROBLEM.sample(150, seed=2)
    noise = np.random.default_rng(0).normal(0, 1, log.steps)
    log = replace(
        log,
        observations=np.random.default_rng(1).normal(0, 1, (log.steps, 30)),
        final_observations=np.zeros((150, 30)),
        rewards=np.where(np.arange(log.steps) == np.repeat(log.start, log.lengths), noise, 0.0),
    )
    training, validation, test = parts_of(log)
    critic = fitted_critic(training, validation, discount=1.0, hidden=(64,), seed=0)
    (batch,) = test.batches()
    first = batch.segments.is_first
    error = (critic(batch) - critic.targets(batch))[first].square().mean()
    assert error < 1.1 * critic.targets(batch)[first].var()


def lively(critic):
    """A value function that begins at a line, as if it had learnt something of what it sees."""
    torch.nn.init.orthogonal_(critic.network[-1].weight, generator=torch.Generator().manual_seed(0))
    return critic


def test_observations_of_any_kind_are_seen():
    (batch,) = parts_of(LOG)[0].batches()
    one_hot = lively(ValueFunction(batch, discount=1.0, hidden=(), seed=0))
    assert one_hot.classes == int(batch.observations.max()) + 1
    beyond = replace(batch, observations=batch.observations + 100)
    torch.testing.assert_close(
        one_hot(beyond),
        one_hot(
            replace(batch, observations=torch.full_like(batch.observations, one_hot.classes - 1))
        ),
    )
    for seen in (
        batch.observations.double(),
        -batch.observations,
        1e9 + batch.observations.double(),
    ):
        critic = lively(
            ValueFunction(replace(batch, observations=seen), discount=1.0, hidden=(4,), seed=0)
        )
        assert critic.classes == 0
        values = critic(replace(batch, observations=seen))
        assert values.isfinite().all()
        assert len(values.unique()) > 5 * PROBLEM.horizon // 2
    table = batch.observations.reshape(-1, 1, 1).expand(-1, 2, 3)
    critic = ValueFunction(replace(batch, observations=table), discount=1.0, hidden=(), seed=0)
    assert critic.size == 7
