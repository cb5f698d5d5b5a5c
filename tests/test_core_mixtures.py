import math

import pytest
import torch
from core_batches import SHARES, close, ragged

from reweigh.core import weights
from reweigh.core.ratios import log_ratios
from reweigh.core.segments import Segments


def test_one_source_is_no_mixture():
    b = ragged([3, 4], 5)
    alone, one = b.behaviour.unsqueeze(0), torch.ones(1)
    close(weights.mixture(alone, one, b.segments), b.behaviour)
    close(weights.balance_heuristic(b.target, alone, one, b.segments), b.prefix)


def test_mixtures_are_sums_of_probabilities():
    b = ragged([2, 3], 6)
    want = (SHARES.double().unsqueeze(1) * b.sources.exp()).sum(0)
    close(weights.mixture(b.sources, SHARES, b.segments).exp(), want)
    products = torch.stack([x.exp().cumprod(0)[-1] for x in b.sources[:, 2:]])
    want = b.target[2:].exp().prod() / (SHARES.double() * products).sum()
    found = weights.balance_heuristic(b.target, b.sources, SHARES, b.segments)
    close(found[-1].exp(), want)


def test_the_balance_heuristic_is_bounded_by_every_source():
    b = ragged([6] * 5, 7)
    found = weights.balance_heuristic(b.target, b.sources, SHARES, b.segments)
    for share, source in zip(SHARES, b.sources, strict=True):
        own = weights.prefix(log_ratios(b.target, source, b.segments), b.segments)
        assert bool((found <= own - share.log() + 1e-6).all())


def test_a_source_that_never_takes_the_action_drops_out():
    segments = Segments.packed([1])
    sources = torch.tensor([[-torch.inf], [-1.0]])
    found = weights.mixture(sources, torch.tensor([0.5, 0.5]), segments)
    close(found, [-1.0 + math.log(0.5)], 1e-6)


@pytest.mark.parametrize("shares", [[0.5, 0.6], [1.5, -0.5], [torch.nan, 1.0]])
def test_refuses_shares_that_are_none(shares):
    with pytest.raises(ValueError, match="sum to 1"):
        weights.mixture(torch.zeros(2, 1), torch.tensor(shares), Segments.packed([1]))


def test_each_step_is_divided_by_the_policy_that_sampled_it():
    b = ragged([3, 2], 8)
    source = torch.tensor([0, 0, 2, 1, 1])
    found = weights.select_behaviour(b.sources, source, b.segments)
    close(found, [b.sources[j, i] for i, j in enumerate(source.tolist())])


def test_schedules_of_one_version_are_that_version():
    b = ragged([3, 4], 9)
    constant = torch.tensor([[0] * 4, [2] * 4])
    close(weights.schedule_sources(b.sources, constant, b.segments), b.sources[[0, 2]])


def test_a_partial_rollout_is_weighted_against_its_schedule():
    """Two actions, no states: every trajectory of two steps under two schedules, enumerated."""
    versions = torch.tensor([[0.5, 0.5], [0.2, 0.8], [0.7, 0.3]]).double().log()
    target = torch.tensor([0.9, 0.1]).double().log()
    actions = torch.tensor([0, 0, 0, 1, 1, 0, 1, 1])
    segments = Segments.packed([2] * 4)
    schedules, shares = torch.tensor([[0, 1], [2, 2]]), torch.tensor([0.25, 0.75])
    sources = weights.schedule_sources(versions[:, actions], schedules, segments)
    sampled = (shares.double().unsqueeze(1) * sources.reshape(2, 4, 2).sum(2).exp()).sum(0)
    found = weights.balance_heuristic_trajectory(target[actions], sources, shares, segments)
    weighted = sampled * segments.last(found).exp()
    close(weighted, target[actions].reshape(4, 2).sum(1).exp(), 1e-7)


def test_schedules_shorter_than_an_episode_are_refused():
    b = ragged([3], 1)
    with pytest.raises(ValueError, match="prolong them with the last version"):
        weights.schedule_sources(b.sources, torch.zeros(1, 2).long(), b.segments)


def test_trajectory_weights_of_a_mixture_are_its_last_prefix_weights():
    b = ragged([3, 0, 4], 10)
    whole = weights.balance_heuristic_trajectory(b.target, b.sources, SHARES, b.segments)
    prefix = weights.balance_heuristic(b.target, b.sources, SHARES, b.segments)
    close(whole, b.segments.spread(b.segments.last(prefix)))
    alone = weights.balance_heuristic_trajectory(b.target, b.sources[:1], torch.ones(1), b.segments)
    ratios = log_ratios(b.target, b.sources[0], b.segments)
    close(alone, weights.trajectory(ratios, b.segments))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_defensive_mixture_is_bounded_by_the_share_of_the_target(share):
    b = ragged([6] * 5, 11)
    log_probs, proportions = weights.defensive(b.target, b.sources, SHARES, share=share)
    close(proportions, [*((1 - share) * SHARES.double()), share])
    found = weights.balance_heuristic(b.target, log_probs, proportions, b.segments)
    if share == 0.0:
        close(found, weights.balance_heuristic(b.target, b.sources, SHARES, b.segments))
    else:
        assert bool((found <= -math.log(share) + 1e-12).all())
    if share == 1.0:
        close(found, torch.zeros(30))


def test_power_mean_parameters_are_those_of_the_paper():
    moments = torch.tensor([1.0, 4.0, 25.0])
    found = weights.power_mean_parameters(moments, [10, 20, 30], delta=0.1)
    want = [min(1.0, math.sqrt(4 * math.log(10) / (3 * 60 * d))) for d in (1, 4, 25)]
    close(found.share, want)
    close(found.proportion, torch.tensor([1 / 1, 1 / 2, 1 / 5]).double() / 1.7, 1e-7)
    few = weights.power_mean_parameters(torch.ones(1), [1])
    close(few.share, [1.0])


@pytest.mark.parametrize(
    ("policies", "mean_age", "want"),
    [
        (4, 2.0, [0.4, 0.3, 0.2, 0.1]),
        (8, 2.0, [0.4, 0.3, 0.2, 0.1, 0, 0, 0, 0]),
        (3, 2.0, [1 / 3] * 3),
        (3, 9.0, [1 / 3] * 3),
        (5, 1.0, [1, 0, 0, 0, 0]),
        (2, 1.25, [0.75, 0.25]),
        (1, 1.5, [1.0]),
    ],
)
def test_proportions_by_age(policies, mean_age, want):
    found = weights.proportions_by_age(policies, mean_age=mean_age)
    close(found, want)
    close(found.sum(), 1.0)


@pytest.mark.parametrize("mean_age", [1.1, 1.7, 2.3, 3.3, 5.0, 7.9])
def test_proportions_by_age_are_the_most_even_of_their_mean_age(mean_age):
    """Against the optimality conditions: α = max(0, ν - μ i), with the mean age attained."""
    found = weights.proportions_by_age(20, mean_age=mean_age)
    age = torch.arange(1, 21, dtype=torch.float64)
    close((found * age).sum(), mean_age)
    used = int((found > 0).sum())
    steps = found[: used - 1] - found[1:used]
    close(steps, steps[0].expand(used - 1))
    # The line does not rise above 0 beyond the last policy that counts.
    assert used == 20 or float(found[used - 1] - steps[0]) <= 1e-12


@pytest.mark.parametrize(
    "weight", [weights.balance_heuristic, weights.balance_heuristic_trajectory]
)
def test_mixture_weights_are_differentiable_in_the_target_alone(weight):
    b = ragged([3, 0, 2], 13)
    b.sources.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: weight(x, b.sources, SHARES.double(), b.segments),
        (b.target.clone().requires_grad_(),),
    )
    found = weight(b.target.requires_grad_(), b.sources, SHARES, b.segments).sum()
    assert torch.autograd.grad(found, b.sources, allow_unused=True) == (None,)


def test_what_no_source_could_have_sampled_is_refused():
    b = ragged([3, 2], 12)
    never = torch.full_like(b.sources, -torch.inf)
    broken = b.sources.clone()
    broken[1, 4] = torch.nan
    with pytest.raises(ValueError, match="under every source is -inf at step 0 of episode 0"):
        weights.balance_heuristic(b.target, never, SHARES, b.segments)
    with pytest.raises(ValueError, match=r"sources\[1\] is nan at step 1 of episode 1"):
        weights.balance_heuristic(b.target, broken, SHARES, b.segments)


def test_refusals():
    with pytest.raises(ValueError, match="second moments of weights are at least 1"):
        weights.power_mean_parameters(torch.tensor([0.5]), [3])
    with pytest.raises(ValueError, match="delta must lie between 0 and 1, got 1"):
        weights.power_mean_parameters(torch.ones(1), [3], delta=1.0)
    with pytest.raises(ValueError, match=r"every source needs an episode, got \[3, 0\]"):
        weights.power_mean_parameters(torch.ones(2), [3, 0])
    with pytest.raises(ValueError, match="mean_age must be at least 1"):
        weights.proportions_by_age(3, mean_age=0.5)
    with pytest.raises(ValueError, match="policies must be an integer of at least 1"):
        weights.proportions_by_age(0, mean_age=2)
