import math

import pytest
import torch
from core_batches import close, ragged, ragged_lengths, seeds
from hypothesis import given, settings

from reweigh.core import advantages, returns, weights
from reweigh.core.scan import linear_recurrence
from reweigh.core.segments import Segments

several = settings(max_examples=30, deadline=None, derandomize=True)


def truncated(b, maximum):
    return weights.truncate(b.ratios, b.segments, maximum=maximum).log_weights


def vtrace_by_definition(b, *, discount, trace_lambda, max_rho, max_c):
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
    advantage = [min(max_rho, rho[t]) * (action_values[t] - v[t]) for t in range(len(r))]
    return targets, action_values, advantage


@pytest.mark.parametrize(
    ("trace_lambda", "max_rho", "max_c"),
    [(1.0, 1.0, 1.0), (0.7, 2.0, 0.8), (0.9, math.inf, math.inf)],
)
@several
@given(lengths=ragged_lengths, seed=seeds)
def test_vtrace_is_the_recursion_of_the_paper(trace_lambda, max_rho, max_c, lengths, seed):
    b = ragged(lengths, seed)
    knobs = {"discount": 0.9, "trace_lambda": trace_lambda}
    given = (b.rewards, b.values, b.bootstrap, truncated(b, max_rho), truncated(b, max_c))
    found = advantages.vtrace(*given, b.segments, **knobs)
    want = vtrace_by_definition(b, max_rho=max_rho, max_c=max_c, **knobs)
    for x, y in zip(found, want, strict=True):
        close(x, y, 1e-9)


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
            on_policy,
            b.segments,
            discount=0.9,
            trace_lambda=trace_lambda,
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
        torch.zeros(3),
        torch.tensor([0.0, 800.0, 0.0]),
        segments,
        discount=0.9,
    )
    assert found.targets.tolist() == [0.0] * 3


def test_targets_and_advantages_are_constants():
    b = ragged([3], 0)
    values = b.values.requires_grad_()
    given = (b.rewards, values, b.bootstrap)
    found = (
        *advantages.vtrace(*given, b.ratios, b.ratios, b.segments, discount=0.9),
        advantages.gae(*given, b.segments, discount=0.9, trace_lambda=0.9),
    )
    assert not any(x.requires_grad for x in found)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"discount": 1.1}, r"discount must lie in \[0, 1\], got 1.1"),
        ({"discount": math.nan}, "discount must lie in"),
        ({"discount": 0.9, "trace_lambda": -0.1}, r"trace_lambda must lie in \[0, 1\]"),
    ],
)
def test_refuses_knobs_out_of_range(knobs, message):
    b = ragged([3], 0)
    with pytest.raises(ValueError, match=message):
        advantages.vtrace(b.rewards, b.values, b.bootstrap, b.ratios, b.ratios, b.segments, **knobs)


def test_refuses_another_number_of_bootstraps():
    b = ragged([3, 2], 0)
    with pytest.raises(ValueError, match=r"bootstrap must have shape \[2\].*each episode.*\[5\]"):
        advantages.vtrace(
            b.rewards, b.values, b.values, b.ratios, b.ratios, b.segments, discount=0.9
        )


def test_leaky_ratios_are_ratios_like_any_other():
    """Zahavy et al. 2020: every `min(x, ρ)` becomes `(1 - leak) min(x, ρ) + leak ρ`."""
    b = ragged([5, 0, 7], 3)

    def leaky(maximum):
        bounded = weights.leaky_truncate(b.ratios, b.segments, maximum=maximum, leak=0.3)
        return bounded.log_weights

    found = advantages.vtrace(
        *(b.rewards, b.values, b.bootstrap, leaky(2.0), leaky(0.8), b.segments),
        discount=0.9,
        trace_lambda=0.7,
    )
    ratio = b.ratios.exp()
    rho, c = (0.7 * ratio.clamp(max=maximum) + 0.3 * ratio for maximum in (2.0, 0.8))
    close(found.advantages, rho * (found.action_values - b.values), 1e-10)
    one_step = advantages.one_step(b.rewards, b.values, b.bootstrap, b.segments, discount=0.9)
    sums = linear_recurrence(rho * (one_step - b.values), 0.63 * c, b.segments)
    close(found.targets, b.values + sums, 1e-10)


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_without_bounds_the_targets_are_doubly_robust(lengths, seed):
    b = ragged(lengths, seed)
    found = advantages.vtrace(
        b.rewards, b.values, b.bootstrap, b.ratios, b.ratios, b.segments, discount=0.9
    )
    want = returns.doubly_robust_values(
        *(b.rewards, b.ratios, b.values, b.values, b.segments),
        discount=0.9,
        bootstrap=b.bootstrap,
    )
    close(found.targets, want.values, 1e-10)


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_the_ends_of_gae_are_one_step_and_monte_carlo(lengths, seed):
    b = ragged(lengths, seed)
    given = (b.rewards, b.values, b.bootstrap, b.segments)
    one_step = advantages.one_step(*given, discount=0.9)
    monte_carlo = returns.reward_to_go(b.rewards, b.segments, discount=0.9, bootstrap=b.bootstrap)
    close(b.values + advantages.gae(*given, discount=0.9, trace_lambda=0.0), one_step)
    close(b.values + advantages.gae(*given, discount=0.9, trace_lambda=1.0), monte_carlo)


@pytest.mark.parametrize("knobs", [{"discount": 0.0}, {"discount": 0.9, "trace_lambda": 0.0}])
def test_a_factor_of_zero_cuts_traces_that_overflow(knobs):
    segments, zero = Segments.packed([2]), torch.zeros(2)
    log_rhos = torch.tensor([0.0, 800.0], dtype=torch.float64)
    log_cs = torch.tensor([800.0, 0.0], dtype=torch.float64)
    found = advantages.vtrace(torch.ones(2), zero, zero[:1], zero, log_cs, segments, **knobs)
    assert found.targets.tolist() == [1.0, 1.0]
    leaky = weights.leaky_truncate(log_cs, segments, maximum=1.0, leak=0.1).log_weights
    found = advantages.vtrace(torch.ones(2), zero, zero[:1], leaky, leaky, segments, **knobs)
    assert found.targets.tolist() == [torch.inf, 1.0]
    found = advantages.vtrace(torch.ones(2), zero, zero[:1], log_rhos, log_cs, segments, **knobs)
    later = torch.inf if knobs["discount"] > 0 else 1.0
    assert found.targets.tolist() == [1.0, torch.inf]
    assert found.action_values.tolist() == [later, 1.0]
    assert found.advantages.tolist() == [later, torch.inf]
    assert advantages.retrace(
        torch.ones(2), zero, zero, zero[:1], log_cs, segments, **knobs
    ).tolist() == [1.0, 1.0]
    found = advantages.corrected_action_values(
        torch.ones(2), zero, zero, zero[:1], log_rhos, segments, **knobs
    )
    assert found.tolist() == [1.0, 1.0]


def test_with_ratios_up_to_one_nothing_is_rescaled():
    """The targets that training computes are those of the plain recurrence, to the last bit."""
    b = ragged([9, 30, 1], 6)
    bounded = truncated(b, 1.0)
    found = advantages.vtrace(
        *(b.rewards, b.values, b.bootstrap, bounded, bounded, b.segments),
        discount=0.99,
        trace_lambda=0.95,
    )
    ratio = bounded.exp()
    one_step = advantages.one_step(b.rewards, b.values, b.bootstrap, b.segments, discount=0.99)
    sums = linear_recurrence(ratio * (one_step - b.values), 0.99 * (0.95 * ratio), b.segments)
    assert torch.equal(found.targets, b.values + sums)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("maximum", [1.0, math.inf])
def test_extreme_ratios_are_finite_where_the_sum_is(dtype, maximum):
    segments = Segments.packed([3])
    log_ratios = torch.tensor([-1e4, 1e4, 0.0], dtype=dtype)
    values, rewards = torch.tensor([1.0, 2.0, 3.0], dtype=dtype), torch.ones(3, dtype=dtype)
    bounded = weights.truncate(log_ratios, segments, maximum=maximum).log_weights
    found = advantages.vtrace(
        rewards, values, torch.zeros(1), bounded, bounded, segments, discount=0.5
    )
    if maximum == 1.0:
        assert all(bool(x.isfinite().all()) for x in found)
    else:
        # Step 0 sees its own ratio times the next one's, which is 1: 1 + 0.5 (1 + 0.5 * 1 - 2).
        close(found.targets[0], 0.75)
        close(found.advantages[0], -0.25)


def test_ratios_above_one_under_a_discount_that_outweighs_them():
    """The product of all ratios overflows; what the discount leaves of it is a geometric series."""
    length = 10_000
    ratios = torch.full((length,), math.log(1.2), dtype=torch.float64)
    one, zero = torch.ones(length), torch.zeros(length)
    segments = Segments.packed([length])
    found = advantages.vtrace(one, zero, torch.zeros(1), ratios, ratios, segments, discount=0.5)
    close(found.targets[0], 1.2 / (1.0 - 0.5 * 1.2))


def test_a_trace_may_undo_the_ratio_of_the_next_step():
    log_rho = torch.tensor([0.0, 1e4], dtype=torch.float64)
    log_c = torch.tensor([-1e4, 0.0], dtype=torch.float64)
    found = advantages.vtrace(
        torch.ones(2),
        torch.zeros(2),
        torch.zeros(1),
        log_rho,
        log_c,
        Segments.packed([2]),
        discount=0.5,
    )
    assert found.targets.tolist() == [1.5, torch.inf]


def test_a_hundred_thousand_steps():
    g = torch.Generator().manual_seed(0)
    length = 100_000
    x = torch.randn(3, length, generator=g, dtype=torch.float64)
    segments = Segments.packed([length])
    ratios = 0.1 * x[2]
    bounded = weights.truncate(ratios, segments, maximum=1.0).log_weights
    given = (x[0], x[1], torch.zeros(1))
    found = advantages.vtrace(*given, bounded, ratios, segments, discount=0.99)
    assert all(bool(part.isfinite().all()) for part in found)
    above = advantages.gae(*given, segments, discount=1.0, trace_lambda=1.0)
    close(above[0] + x[1, 0], math.fsum(x[0].tolist()), 1e-9)
