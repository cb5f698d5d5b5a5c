import math

import pytest
import torch
from core_batches import ragged, ragged_lengths, seeds
from hypothesis import given, settings

from reweigh.core import advantages, returns, weights
from reweigh.core.segments import Segments

several = settings(max_examples=30, deadline=None, derandomize=True)


def close(found, want, tolerance=1e-12):
    want = torch.as_tensor(want, dtype=torch.float64)
    torch.testing.assert_close(found, want, rtol=tolerance, atol=tolerance)


def per_decision_by_definition(b, log_weights, discount):
    """Oracle: the double sum, term by term."""
    found = []
    for i, (start, stop) in enumerate(
        zip(b.segments.start.tolist(), b.segments.stop.tolist(), strict=True)
    ):
        for t in range(start, stop):
            terms = [
                discount ** (k - t) * float(log_weights[k].exp() * b.rewards[k])
                for k in range(t, stop)
            ]
            terms.append(
                discount ** (stop - t) * float(log_weights[stop - 1].exp() * b.bootstrap[i])
            )
            found.append(math.fsum(terms))
    return found


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_returns_are_their_definition(lengths, seed):
    b = ragged(lengths, seed)
    found = returns.weighted_reward_to_go(
        b.rewards, b.prefix, b.segments, discount=0.9, bootstrap=b.bootstrap
    )
    close(found, per_decision_by_definition(b, b.prefix, 0.9), 1e-10)
    found = returns.reward_to_go(b.rewards, b.segments, discount=0.9, bootstrap=b.bootstrap)
    close(found, per_decision_by_definition(b, torch.zeros_like(b.prefix), 0.9), 1e-10)


def test_no_bootstrap_is_termination():
    b = ragged([3, 2], 0)
    zero = torch.zeros(2)
    for discount in (0.0, 0.9, 1.0):
        close(
            returns.reward_to_go(b.rewards, b.segments, discount=discount),
            returns.reward_to_go(b.rewards, b.segments, discount=discount, bootstrap=zero),
        )
    close(returns.reward_to_go(b.rewards, b.segments, discount=0.0), b.rewards)


def test_discount_counts_from_the_true_start():
    segments = Segments.packed([2, 2], time_start=torch.tensor([0, 3]))
    close(returns.discount_from_start(segments, discount=0.5), [1.0, 0.5, 0.125, 0.0625])


def doubly_robust_by_definition(b, discount):
    """Oracle: the recursion of the paper, backwards in time, in Python."""
    rho, r = b.ratios.exp().tolist(), b.rewards.tolist()
    v, q = b.values.tolist(), b.advantages.tolist()
    values, residuals = [0.0] * len(r), [0.0] * len(r)
    for i, (start, stop) in enumerate(
        zip(b.segments.start.tolist(), b.segments.stop.tolist(), strict=True)
    ):
        later = float(b.bootstrap[i])
        for t in reversed(range(start, stop)):
            residuals[t] = r[t] + discount * later - q[t]
            later = values[t] = v[t] + rho[t] * residuals[t]
    return values, residuals


def doubly_robust(b, log_ratios=None, *, discount=0.9, bootstrap=True):
    return returns.doubly_robust_values(
        b.rewards,
        b.ratios if log_ratios is None else log_ratios,
        b.values,
        b.advantages,
        b.segments,
        discount=discount,
        bootstrap=b.bootstrap if bootstrap else None,
    )


@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
@several
@given(lengths=ragged_lengths, seed=seeds)
def test_doubly_robust_is_the_recursion_of_the_paper(discount, lengths, seed):
    b = ragged(lengths, seed)
    for found, want in zip(
        doubly_robust(b, discount=discount), doubly_robust_by_definition(b, discount), strict=True
    ):
        close(found, want, 1e-9)


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_weighted_residuals_are_per_decision_returns_of_what_the_critic_misses(lengths, seed):
    b = ragged(lengths, seed)
    differences = (
        advantages.one_step(b.rewards, b.values, b.bootstrap, b.segments, discount=0.9)
        - b.advantages
    )
    want = returns.weighted_reward_to_go(differences, b.prefix, b.segments, discount=0.9)
    close(b.prefix.exp() * doubly_robust(b).residuals, want, 1e-9)


def test_without_a_critic_doubly_robust_is_per_decision():
    b = ragged([4, 0, 3], 2)
    nothing = torch.zeros_like(b.rewards)
    found = returns.doubly_robust_values(
        b.rewards, b.ratios, nothing, nothing, b.segments, discount=0.9, bootstrap=b.bootstrap
    )
    want = returns.weighted_reward_to_go(
        b.rewards, b.prefix, b.segments, discount=0.9, bootstrap=b.bootstrap
    )
    close(b.prefix.exp() * found.residuals, want, 1e-11)
    close(found.values, b.ratios.exp() * found.residuals)
    on_policy = returns.doubly_robust_values(
        b.rewards, nothing, nothing, nothing, b.segments, discount=0.9, bootstrap=b.bootstrap
    )
    want = returns.reward_to_go(b.rewards, b.segments, discount=0.9, bootstrap=b.bootstrap)
    close(on_policy.values, want)


def test_a_critic_that_knows_everything_leaves_nothing():
    """Deterministic rewards, exact values: whatever the ratios, no noise at all."""
    b = ragged([5, 3], 4)
    exact = returns.reward_to_go(b.rewards, b.segments, discount=0.9, bootstrap=b.bootstrap)
    found = returns.doubly_robust_values(
        b.rewards, b.ratios, exact, exact, b.segments, discount=0.9, bootstrap=b.bootstrap
    )
    close(found.values, exact)
    close(found.residuals, torch.zeros(8))


def test_doubly_robust_without_bootstrap_is_termination():
    b = ragged([3, 2], 0)
    b.bootstrap = torch.zeros(2)
    for found, want in zip(doubly_robust(b, bootstrap=False), doubly_robust(b), strict=True):
        close(found, want)


@pytest.mark.parametrize("lengths", [[1], [7], [3, 0, 4]])
def test_doubly_robust_has_the_right_gradient(lengths):
    b = ragged(lengths, 1)
    leaves = [b.rewards, 2 * b.ratios, b.values, b.advantages]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    bootstrap = b.bootstrap.requires_grad_()

    def both(*x):
        found = returns.doubly_robust_values(*x[:-1], b.segments, discount=0.9, bootstrap=x[-1])
        return found.values, found.residuals

    assert torch.autograd.gradcheck(both, (*leaves, bootstrap))


@pytest.mark.parametrize(
    ("log_ratios", "value"),
    [
        ([-1e4, 1e4], 0.9),  # one ratio undoes the other, and the second reward arrives
        ([-torch.inf, 1e4], 0.0),
        ([-1e4, -1e4], 0.0),
        ([0.0, -torch.inf], 1.0),
    ],
)
def test_what_overflows_on_the_way_may_be_finite(log_ratios, value):
    segments = Segments.packed([2])
    log_ratios = torch.tensor(log_ratios, dtype=torch.float64, requires_grad=True)
    rewards = torch.ones(2, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(2)
    found = returns.doubly_robust_values(
        rewards, log_ratios, zero, zero, segments, discount=0.9
    ).values[0]
    close(found.detach(), value)
    gradients = torch.autograd.grad(found, (log_ratios, rewards))
    assert all(bool(g.isfinite().all()) for g in gradients)
    if value == 0.9:
        close(gradients[0], [0.9, 0.9])


def test_doubly_robust_over_a_hundred_thousand_steps():
    g = torch.Generator().manual_seed(0)
    length = 100_000
    segments = Segments.packed([length])
    log_ratios = torch.randn(length, generator=g, dtype=torch.float64) * 0.1
    rewards = torch.randn(length, generator=g, dtype=torch.float64)
    zero = torch.zeros(length)
    found = returns.doubly_robust_values(rewards, log_ratios, zero, zero, segments, discount=0.999)
    prefix = weights.prefix(log_ratios, segments)
    want = returns.weighted_reward_to_go(rewards, prefix, segments, discount=0.999)
    close(found.values[0], want[0], 1e-9)
    assert bool(found.values.isfinite().all())


def test_a_weight_that_overflows_on_no_reward_is_nothing():
    segments = Segments.packed([4])
    ratios = torch.tensor([1e4, -1e4, 1e4, -1e4], dtype=torch.float64, requires_grad=True)
    rewards = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    prefix = weights.prefix(ratios, segments)
    found = returns.weighted_reward_to_go(rewards, prefix, segments, discount=0.9)
    torch.testing.assert_close(found.tolist(), [0.9 + 0.729, 1.81, 0.9, 1.0])
    gradients = torch.autograd.grad(found.sum(), (ratios, rewards))
    assert all(g.isfinite().all() for g in gradients)


def test_without_a_discounted_future_ratios_that_overflow_do_not_matter():
    segments = Segments.packed([2])
    log_ratios = torch.tensor([0.0, 800.0], dtype=torch.float64, requires_grad=True)
    ones, zero = torch.ones(2), torch.zeros(2)
    found = returns.target_reward_to_go(ones, log_ratios, segments, discount=0.0)
    assert found.tolist() == [1.0, 1.0]
    robust = returns.doubly_robust_values(ones, log_ratios, zero, zero, segments, discount=0.0)
    assert robust.residuals.tolist() == [1.0, 1.0]
    assert robust.values.tolist() == [1.0, torch.inf]
    gradient = torch.autograd.grad(robust.residuals.sum() + robust.values[0], log_ratios)[0]
    assert gradient.tolist() == [1.0, 0.0]
    found = returns.weighted_reward_to_go(ones, log_ratios, segments, discount=0.0)
    assert found.tolist() == [1.0, torch.inf]
