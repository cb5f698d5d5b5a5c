"""What learning maximises: its value, its gradient, and what it is unbiased for."""

from itertools import product
from typing import get_args

import pytest
import torch

import reweigh as rw
from reweigh.core import advantages
from reweigh.core.surrogates import weighted_log_prob
from reweigh.core.terms import totals
from reweigh.evaluation import importance
from reweigh.evaluation.sample import Sample
from reweigh.learning.config import EstimatorName
from reweigh.learning.estimators import (
    ESTIMATORS,
    doubly_robust,
    per_decision,
    step,
    weighted_doubly_robust,
    weighted_per_decision,
    weighted_terms,
)

DISCOUNT = 0.9
LENGTHS = [3, 1, 4, 2]
DIFFERENTIATED = (per_decision, weighted_per_decision, doubly_robust, weighted_doubly_robust)


def draw(*, apart: float = 0.5, lengths=LENGTHS, seed: int = 0):
    """A sample whose target differentiates, and values of its states."""
    generator = torch.Generator().manual_seed(seed)
    steps = sum(lengths)
    rewards, behaviour, noise, values = torch.randn(
        4, steps, generator=generator, dtype=torch.float64
    )
    target = (behaviour + apart * noise).requires_grad_()
    segments = rw.Segments.packed(lengths)
    return Sample(rewards, target, behaviour, segments, DISCOUNT), values


def gradient(objective, sample, values):
    value = objective(sample, values)
    return torch.autograd.grad(value, sample.log_prob_target, retain_graph=True)[0]


def test_there_is_an_estimator_for_every_name():
    assert set(ESTIMATORS) == set(get_args(EstimatorName))


def test_the_gradient_of_per_decision_is_that_of_the_recipe():
    sample, values = draw()
    loss = rw.recipes.per_decision(
        sample.log_prob_target,
        sample.log_prob_behaviour,
        sample.rewards,
        sample.segments,
        discount=DISCOUNT,
    )
    (expected,) = torch.autograd.grad(-loss, sample.log_prob_target)
    torch.testing.assert_close(gradient(per_decision, sample, values), expected)


@pytest.mark.parametrize(
    ("robust", "plain"),
    [(doubly_robust, per_decision), (weighted_doubly_robust, weighted_per_decision)],
)
def test_without_values_doubly_robust_is_per_decision(robust, plain):
    sample, values = draw()
    torch.testing.assert_close(robust(sample, 0 * values), plain(sample, values))
    torch.testing.assert_close(
        gradient(robust, sample, 0 * values), gradient(plain, sample, values)
    )
    assert not torch.isclose(robust(sample, values), plain(sample, values))


@pytest.mark.parametrize("objective", DIFFERENTIATED)
def test_with_weights_of_one_it_is_the_mean_return_whatever_the_values(objective):
    sample, values = draw(apart=0.0)
    torch.testing.assert_close(objective(sample, values), sample.returns.mean())


@pytest.mark.parametrize("objective", [weighted_per_decision, weighted_doubly_robust])
def test_self_normalised_a_common_factor_of_all_weights_changes_nothing(objective):
    sample, values = draw()
    shift = torch.where(sample.segments.is_first, 1.7, 0.0)
    raised = Sample(
        sample.rewards,
        sample.log_prob_target + shift,
        sample.log_prob_behaviour,
        sample.segments,
        DISCOUNT,
    )
    torch.testing.assert_close(objective(raised, values), objective(sample, values))


@pytest.mark.parametrize("objective", [per_decision, doubly_robust])
def test_over_all_trajectories_value_and_gradient_are_those_of_the_policy(objective):
    """Two actions, two steps, the reward and the value depending on all that was done."""
    logits = torch.tensor([[0.3, -0.2], [0.5, 0.1], [-0.4, 0.6]], dtype=torch.float64)
    logits.requires_grad_()
    behaviour = torch.tensor([[0.1, 0.2], [-0.3, 0.0], [0.2, 0.5]], dtype=torch.float64)
    reward = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.7]], dtype=torch.float64)
    guess = torch.tensor([4.0, -1.0, 2.0], dtype=torch.float64)
    expected = exact = torch.zeros((), dtype=torch.float64)
    for actions in product(range(2), repeat=2):
        states = torch.tensor([0, 1 + actions[0]])
        taken = torch.tensor(actions)
        log_prob = [x.log_softmax(1)[states, taken] for x in (logits, behaviour)]
        rewards = reward[states, taken]
        sample = Sample(rewards, log_prob[0], log_prob[1], rw.Segments.packed([2]), DISCOUNT)
        expected = expected + log_prob[1].sum().exp() * objective(sample, guess[states])
        exact = exact + log_prob[0].sum().exp() * (rewards[0] + DISCOUNT * rewards[1])
    torch.testing.assert_close(expected, exact)
    found, wanted = (
        torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (expected, exact)
    )
    torch.testing.assert_close(found, wanted)


def test_true_values_leave_less_to_chance():
    """Rewards that depend on the state alone: the values explain them all."""
    sample, _ = draw(lengths=[5] * 40)
    rewards = 0.1 * (1.0 + sample.segments.time.double()) + 3.0
    sample = Sample(rewards, sample.log_prob_target, sample.log_prob_behaviour, sample.segments, 1)
    values = rw.returns.reward_to_go(rewards, sample.segments, discount=1.0)
    for objective in (doubly_robust, weighted_doubly_robust):
        torch.testing.assert_close(objective(sample, values), values[0])
    assert abs(per_decision(sample, values) - values[0]) > 0.1


def test_the_terms_of_the_test_are_those_of_per_decision_where_values_are_none():
    sample, values = draw()
    terms, plain = weighted_terms(sample, 0 * values), importance.weighted_per_decision(sample)
    torch.testing.assert_close(terms.plain, plain.plain)
    assert terms.weighted is not None
    assert plain.weighted is not None
    torch.testing.assert_close(terms.weighted.values, plain.weighted.values)
    torch.testing.assert_close(terms.diagnosed, plain.diagnosed)
    torch.testing.assert_close(
        totals(weighted_terms(sample, values)).value, weighted_doubly_robust(sample, values)
    )


def test_at_the_behaviour_the_step_estimator_is_the_policy_gradient_with_its_advantages():
    sample, values = draw(apart=0.0)
    after = torch.zeros(len(LENGTHS))
    above = advantages.gae(
        sample.rewards, values, after, sample.segments, discount=DISCOUNT, trace_lambda=0.95
    )
    # V-trace's estimate of the action's value goes on by its targets, not by λ at the first step.
    ones = torch.zeros_like(values)
    trace = advantages.vtrace(
        sample.rewards, values, after, ones, ones, sample.segments,
        discount=DISCOUNT, trace_lambda=0.95,
    )  # fmt: skip
    torch.testing.assert_close(trace.targets, above + values)
    above = trace.action_values - values
    above = (above - above.mean()) / above.std(correction=0)
    discounted = rw.returns.discount_from_start(sample.segments, discount=DISCOUNT) * above
    objective = weighted_log_prob(
        sample.log_prob_target, torch.ones_like(values), discounted, sample.segments
    )
    expected = torch.autograd.grad(
        -rw.loss(objective, sample.segments), sample.log_prob_target, allow_unused=True
    )[0]
    torch.testing.assert_close(gradient(step, sample, values), expected)


def test_the_step_estimator_asks_for_no_ratio_beyond_its_clip():
    sample, values = draw(apart=0.0)
    target = torch.where(sample.segments.time == 0, 0.5, 0.0) + sample.log_prob_behaviour
    beyond = Sample(
        sample.rewards,
        target.detach().requires_grad_(),
        sample.log_prob_behaviour,
        sample.segments,
        DISCOUNT,
    )
    found = gradient(step, beyond, values)
    first = sample.segments.time == 0
    assert ((found[first] == 0) | (found[first] < 0)).all()
    assert (found[first] == 0).any()
    assert (found[~first] != 0).all()
