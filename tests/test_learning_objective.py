"""What learning maximises: the estimate that `evaluate` reports, and its gradient."""

from dataclasses import replace

import pytest
import torch
from test_evaluation_evaluate import TARGET, walk

import reweigh as rw
from reweigh.core import advantages
from reweigh.core.surrogates import weighted_log_prob
from reweigh.data.batch import steps_of
from reweigh.evaluation.critics import CriticValues
from reweigh.evaluation.methods import with_critic
from reweigh.learning.critic import ValueFunction
from reweigh.learning.learner import LEARNABLE, clipped_steps, objective_of

DISCOUNT = 0.9
LENGTHS = [3, 1, 4, 2]
each_learnable = pytest.mark.parametrize("name", LEARNABLE)


def draw(*, apart: float = 0.5, lengths=LENGTHS, seed: int = 0):
    """A sample whose target differentiates, and values of its states."""
    generator = torch.Generator().manual_seed(seed)
    steps = sum(lengths)
    rewards, behaviour, noise, values = torch.randn(
        4, steps, generator=generator, dtype=torch.float64
    )
    target = (behaviour + apart * noise).requires_grad_()
    return rw.Sample(target, behaviour, rw.Segments.packed(lengths), rewards, DISCOUNT), values


def gradient(objective, sample, values):
    value = objective(sample, values)
    return torch.autograd.grad(value, sample.log_prob_target, retain_graph=True)[0]


def test_what_can_be_learnt_are_the_value_recipes_with_at_most_a_critic():
    assert set(LEARNABLE) == {
        "importance_sampling",
        "truncated_importance_sampling",
        "pareto_smoothed",
        "per_decision",
        "weighted_importance_sampling",
        "weighted_per_decision",
        "doubly_robust",
        "weighted_doubly_robust",
    }


@each_learnable
def test_the_objective_is_the_estimate_of_evaluate_with_the_same_critic(name):
    log = walk(60)
    batch = rw.Batch.of(log)
    critic = ValueFunction(batch, discount=DISCOUNT, hidden=(8,), seed=0)
    torch.nn.init.normal_(list(critic.network.parameters())[-2])  # more than a line
    of_all = critic(batch)

    def of_states(_, evaluated):
        values = of_all[steps_of(batch.segments, evaluated.batch.episode)]
        return CriticValues(values, values)

    recipe = LEARNABLE[name]
    method = with_critic(recipe, critic=of_states) if recipe.inputs else recipe
    reported = rw.evaluate(log, TARGET, discount=DISCOUNT, methods={name: method})[name].value
    sample = rw.sample_of(batch, TARGET, discount=DISCOUNT)
    for spelt in (name, name.replace("_", "-")):
        objective = objective_of(spelt)
        assert objective.needs_values == bool(recipe.inputs)
        assert not objective.of_steps
        assert float(objective.value(sample, of_all)) == pytest.approx(reported, rel=1e-12)


@each_learnable
def test_the_gradient_of_the_objective_is_that_of_the_recipe(name):
    sample, values = draw()
    sample = replace(sample, rewards=sample.require_rewards().abs())  # none below lowest_return
    recipe = LEARNABLE[name]
    loss = recipe(sample, *[values] * len(recipe.inputs))
    (expected,) = torch.autograd.grad(-loss, sample.log_prob_target, retain_graph=True)
    found = gradient(objective_of(name).value, sample, values)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found.abs().max() > 0


def test_a_recipe_of_ones_own_is_maximised_as_it_is():
    sample, values = draw()
    bounded = rw.recipes.truncated(rw.recipes.doubly_robust, maximum=1.5)
    objective = objective_of(bounded)
    assert objective.needs_values
    torch.testing.assert_close(
        objective.value(sample, values), bounded.estimate(sample, values, values)
    )
    with pytest.raises(ValueError, match="balance_heuristic needs log_prob_sources"):
        objective_of(rw.recipes.balance_heuristic)
    with pytest.raises(ValueError, match=r"estimator is 'trust'; use one of .*per_decision.*, ppo"):
        objective_of("trust")


@pytest.mark.parametrize("name", ["doubly_robust", "weighted_doubly_robust"])
def test_true_values_leave_less_to_chance(name):
    """Rewards that depend on the state alone: the values explain them all."""
    sample, _ = draw(lengths=[5] * 40)
    rewards = 0.1 * (1.0 + sample.segments.time.double()) + 3.0
    sample = rw.Sample(
        sample.log_prob_target, sample.log_prob_behaviour, sample.segments, rewards, 1.0
    )
    values = rw.returns.reward_to_go(rewards, sample.segments, discount=1.0)
    torch.testing.assert_close(objective_of(name).value(sample, values), values[0])
    assert abs(objective_of("per_decision").value(sample, values) - values[0]) > 0.1


def test_at_the_behaviour_ppo_is_the_policy_gradient_with_its_advantages():
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
    ppo = objective_of("ppo")
    assert ppo.of_steps
    assert ppo.needs_values
    torch.testing.assert_close(gradient(ppo.value, sample, values), expected)


def test_ppo_asks_for_no_ratio_beyond_its_clip():
    sample, values = draw(apart=0.0)
    first = sample.segments.time == 0
    target = torch.where(first, 0.5, 0.0) + sample.log_prob_behaviour
    beyond = rw.Sample(
        target.detach().requires_grad_(),
        sample.log_prob_behaviour,
        sample.segments,
        sample.rewards,
        DISCOUNT,
    )
    found = gradient(clipped_steps, beyond, values)
    assert ((found[first] == 0) | (found[first] < 0)).all()
    assert (found[first] == 0).any()
    assert (found[~first] != 0).all()
