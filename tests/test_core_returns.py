import math

import pytest
import torch
from core_batches import ragged, ragged_lengths, seeds
from hypothesis import given, settings

from reweigh.core import advantages, returns
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
    found = returns.per_decision(
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


def vtrace_by_definition(b, *, discount, trace_lambda, max_rho, max_c, max_rho_advantage):
    """Oracle: the recursion of the paper, backwards in time, in Python."""
    rho = b.ratios.exp().tolist()
    r, v = b.rewards.tolist(), b.values.tolist()
    targets, action_values = [0.0] * len(r), [0.0] * len(r)
    for i, (start, stop) in enumerate(
        zip(b.segments.start.tolist(), b.segments.stop.tolist(), strict=True)
    ):
        next_value = next_target = float(b.bootstrap[i])
        for t in reversed(range(start, stop)):
            delta = min(max_rho, rho[t]) * (r[t] + discount * next_value - v[t])
            trace = discount * trace_lambda * min(max_c, rho[t])
            targets[t] = v[t] + delta + trace * (next_target - next_value)
            action_values[t] = r[t] + discount * next_target
            next_value, next_target = v[t], targets[t]
    advantage = [min(max_rho_advantage, rho[t]) * (action_values[t] - v[t]) for t in range(len(r))]
    return targets, action_values, advantage


@pytest.mark.parametrize(
    "knobs",
    [
        {"trace_lambda": 1.0, "max_rho": 1.0, "max_c": 1.0, "max_rho_advantage": 1.0},
        {"trace_lambda": 0.7, "max_rho": 2.0, "max_c": 0.8, "max_rho_advantage": 1.5},
        {
            "trace_lambda": 0.9,
            "max_rho": math.inf,
            "max_c": math.inf,
            "max_rho_advantage": math.inf,
        },
    ],
)
@several
@given(lengths=ragged_lengths, seed=seeds)
def test_vtrace_is_the_recursion_of_the_paper(knobs, lengths, seed):
    b = ragged(lengths, seed)
    found = advantages.vtrace(
        b.rewards, b.values, b.bootstrap, b.ratios, b.segments, discount=0.9, **knobs
    )
    for value, want in zip(found, vtrace_by_definition(b, discount=0.9, **knobs), strict=True):
        close(value, want, 1e-9)


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_on_policy_vtrace_is_the_lambda_return(lengths, seed):
    b = ragged(lengths, seed)
    on_policy = torch.zeros_like(b.rewards)
    for trace_lambda in (0.0, 0.6, 1.0):
        estimate = advantages.gae(
            b.rewards,
            b.values,
            b.bootstrap,
            b.segments,
            discount=0.9,
            trace_lambda=trace_lambda,
        )
        found = advantages.vtrace(
            b.rewards,
            b.values,
            b.bootstrap,
            on_policy,
            b.segments,
            discount=0.9,
            trace_lambda=trace_lambda,
            max_rho=math.inf,
            max_c=math.inf,
            max_rho_advantage=math.inf,
        )
        close(found.targets, estimate + b.values)
    monte_carlo = returns.reward_to_go(b.rewards, b.segments, discount=0.9, bootstrap=b.bootstrap)
    close(estimate + b.values, monte_carlo)
    close(found.advantages, monte_carlo - b.values)


def test_no_value_leaks_across_a_truncation():
    """TorchRL up to 0.14.0 read the next episode's value here: an advantage of 99."""
    segments = Segments.packed([2, 2])
    found = advantages.vtrace(
        torch.zeros(4),
        torch.tensor([1.0, 1.0, 100.0, 100.0]),
        torch.tensor([1.0, 100.0]),
        torch.zeros(4),
        segments,
        discount=1.0,
    )
    assert found.advantages.tolist() == [0.0] * 4
    assert found.targets.tolist() == [1.0, 1.0, 100.0, 100.0]


def test_an_infinite_last_ratio_is_not_multiplied_into_what_follows_it():
    mask = torch.tensor([True, True, False])
    segments = Segments.packed([3], mask=mask)
    found = advantages.vtrace(
        torch.zeros(3),
        torch.zeros(3),
        torch.zeros(1),
        torch.tensor([0.0, 800.0, 0.0]),
        segments,
        discount=0.9,
        max_c=math.inf,
    )
    assert found.targets.tolist() == [0.0] * 3


def test_targets_and_advantages_are_constants():
    b = ragged([3], 0)
    values = b.values.requires_grad_()
    found = advantages.vtrace(b.rewards, values, b.bootstrap, b.ratios, b.segments, discount=0.9)
    assert not any(x.requires_grad for x in found)
    assert not advantages.gae(
        b.rewards, values, b.bootstrap, b.segments, discount=0.9, trace_lambda=0.9
    ).requires_grad


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"discount": 1.1}, r"discount must lie in \[0, 1\], got 1.1"),
        ({"discount": math.nan}, "discount must lie in"),
        ({"discount": 0.9, "trace_lambda": -0.1}, r"trace_lambda must lie in \[0, 1\]"),
        ({"discount": 0.9, "max_rho": 0.0}, "max_rho must be positive, got 0.0"),
        ({"discount": 0.9, "max_c": -1.0}, "max_c must be positive"),
        ({"discount": 0.9, "max_rho_advantage": 0.0}, "max_rho_advantage must be positive"),
    ],
)
def test_refuses_knobs_out_of_range(knobs, message):
    b = ragged([3], 0)
    with pytest.raises(ValueError, match=message):
        advantages.vtrace(b.rewards, b.values, b.bootstrap, b.ratios, b.segments, **knobs)


def test_refuses_another_number_of_bootstraps():
    b = ragged([3, 2], 0)
    with pytest.raises(ValueError, match=r"bootstrap must have shape \[2\].*each episode.*\[5\]"):
        advantages.vtrace(b.rewards, b.values, b.values, b.ratios, b.segments, discount=0.9)
