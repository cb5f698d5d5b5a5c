import math

import pytest
import torch
from core_batches import close, ragged, ragged_lengths, seeds
from hypothesis import given, settings

from reweigh.core import advantages, returns, weights
from reweigh.core.scan import linear_recurrence
from reweigh.core.segments import Segments

several = settings(max_examples=30, deadline=None, derandomize=True)


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
    given = (b.rewards, values, b.bootstrap)
    found = (
        *advantages.vtrace(*given, b.ratios, b.segments, discount=0.9),
        *advantages.leaky_vtrace(*given, b.ratios, b.segments, discount=0.9, leak=0.5),
        advantages.corrected_values(*given, b.ratios, b.ratios, b.segments, discount=0.9),
        advantages.n_step(*given, b.segments, discount=0.9, steps=2),
        advantages.lambda_return(*given, b.segments, discount=0.9, trace_lambda=0.5),
    )
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


def episodes(b):
    return enumerate(zip(b.segments.start.tolist(), b.segments.stop.tolist(), strict=True))


def n_step_by_definition(b, steps, discount):
    """Oracle: the sum, term by term."""
    found = []
    for i, (start, stop) in episodes(b):
        for t in range(start, stop):
            end = min(t + steps, stop)
            terms = [discount ** (k - t) * float(b.rewards[k]) for k in range(t, end)]
            last = b.values[end] if end < stop else b.bootstrap[i]
            found.append(math.fsum([*terms, discount ** (end - t) * float(last)]))
    return found


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 100])
@several
@given(lengths=ragged_lengths, seed=seeds)
def test_n_step_returns_are_their_definition(steps, lengths, seed):
    b = ragged(lengths, seed)
    for discount in (0.0, 0.9, 1.0):
        found = advantages.n_step(
            b.rewards, b.values, b.bootstrap, b.segments, discount=discount, steps=steps
        )
        close(found, n_step_by_definition(b, steps, discount), 1e-11)


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_the_ends_of_n_step_and_lambda_returns_are_one_step_and_monte_carlo(lengths, seed):
    b = ragged(lengths, seed)
    given = (b.rewards, b.values, b.bootstrap, b.segments)
    one_step = advantages.one_step(*given, discount=0.9)
    monte_carlo = returns.reward_to_go(b.rewards, b.segments, discount=0.9, bootstrap=b.bootstrap)
    close(advantages.n_step(*given, discount=0.9, steps=1), one_step)
    close(advantages.lambda_return(*given, discount=0.9, trace_lambda=0.0), one_step)
    close(advantages.n_step(*given, discount=0.9, steps=b.segments.most_steps), monte_carlo)
    close(advantages.lambda_return(*given, discount=0.9, trace_lambda=1.0), monte_carlo)


def test_the_lambda_return_is_a_mean_of_n_step_returns():
    b = ragged([6, 4], 3)
    given = (b.rewards, b.values, b.bootstrap, b.segments)
    # Beyond the episode's end every n-step return is the same: 60 of them weigh all but 1e-13.
    want = sum(
        0.4 * 0.6 ** (n - 1) * advantages.n_step(*given, discount=0.9, steps=n)
        for n in range(1, 60)
    )
    close(advantages.lambda_return(*given, discount=0.9, trace_lambda=0.6), want, 1e-11)


KNOBS = {"trace_lambda": 0.7, "max_rho": 2.0, "max_c": 0.8, "max_rho_advantage": 1.5}


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_leaky_vtrace_is_vtrace_with_other_ratios(lengths, seed):
    b = ragged(lengths, seed)
    given = (b.rewards, b.values, b.bootstrap)
    found = advantages.leaky_vtrace(*given, b.ratios, b.segments, discount=0.9, leak=0.3, **KNOBS)

    def leaky(maximum):
        return 0.7 * b.ratios.exp().clamp(max=maximum) + 0.3 * b.ratios.exp()

    targets = advantages.corrected_values(
        *given,
        leaky(2.0).log(),
        leaky(0.8).log(),
        b.segments,
        discount=0.9,
        trace_lambda=0.7,
    )
    close(found.targets, targets, 1e-10)
    close(found.advantages, leaky(1.5) * (found.action_values - b.values), 1e-10)


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_the_ends_of_the_leak_are_vtrace_with_and_without_truncation(lengths, seed):
    b = ragged(lengths, seed)
    given = (b.rewards, b.values, b.bootstrap, b.ratios, b.segments)
    free = KNOBS | {"max_rho": math.inf, "max_c": math.inf, "max_rho_advantage": math.inf}
    for leak, knobs in ((0.0, KNOBS), (1.0, free)):
        leaky = advantages.leaky_vtrace(*given, discount=0.9, leak=leak, **KNOBS)
        for found, want in zip(
            leaky, advantages.vtrace(*given, discount=0.9, **knobs), strict=True
        ):
            close(found, want, 1e-10)


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_corrected_values_without_truncation_are_doubly_robust(lengths, seed):
    b = ragged(lengths, seed)
    found = advantages.corrected_values(
        b.rewards, b.values, b.bootstrap, b.ratios, b.ratios, b.segments, discount=0.9
    )
    want = returns.doubly_robust_values(
        b.rewards,
        b.ratios,
        b.values,
        b.values,
        b.segments,
        discount=0.9,
        bootstrap=b.bootstrap,
    )
    close(found, want.values, 1e-10)


def test_with_ratios_up_to_one_nothing_is_rescaled():
    """The targets that training computes are those of the plain recurrence, to the last bit."""
    b = ragged([9, 30, 1], 6)
    found = advantages.vtrace(
        b.rewards, b.values, b.bootstrap, b.ratios, b.segments, discount=0.99, trace_lambda=0.95
    )
    ratio = weights.truncate(b.ratios, b.segments, maximum=1.0).log_weights.exp()
    one_step = advantages.one_step(b.rewards, b.values, b.bootstrap, b.segments, discount=0.99)
    sums = linear_recurrence(ratio * (one_step - b.values), 0.99 * (0.95 * ratio), b.segments)
    assert torch.equal(found.targets, b.values + sums)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("leak", [0.0, 0.5])
def test_extreme_ratios_are_finite_where_the_sum_is(dtype, leak):
    segments = Segments.packed([3])
    log_ratios = torch.tensor([-1e4, 1e4, 0.0], dtype=dtype)
    values, rewards = torch.tensor([1.0, 2.0, 3.0], dtype=dtype), torch.ones(3, dtype=dtype)
    found = advantages.leaky_vtrace(
        rewards,
        values,
        torch.zeros(1),
        log_ratios,
        segments,
        discount=0.5,
        leak=leak,
        max_rho=math.inf,
        max_c=math.inf,
    )
    # Step 0 sees its own ratio times the next one's, which is 1: 1 + 0.5 (1 + 0.5 * 1 - 2).
    close(found.targets[0], 0.75)
    close(found.advantages[0], -0.25)
    bounded = advantages.vtrace(rewards, values, torch.zeros(1), log_ratios, segments, discount=0.5)
    assert all(bool(x.isfinite().all()) for x in bounded)


def test_ratios_above_one_under_a_discount_that_outweighs_them():
    """The product of all ratios overflows; what the discount leaves of it is a geometric series."""
    length = 10_000
    ratios = torch.full((length,), math.log(1.2), dtype=torch.float64)
    one, zero = torch.ones(length), torch.zeros(length)
    segments = Segments.packed([length])
    found = advantages.corrected_values(
        one, zero, torch.zeros(1), ratios, ratios, segments, discount=0.5
    )
    close(found[0], 1.2 / (1.0 - 0.5 * 1.2))


def test_a_trace_may_undo_the_ratio_of_the_next_step():
    log_rho = torch.tensor([0.0, 1e4], dtype=torch.float64)
    log_c = torch.tensor([-1e4, 0.0], dtype=torch.float64)
    found = advantages.corrected_values(
        torch.ones(2),
        torch.zeros(2),
        torch.zeros(1),
        log_rho,
        log_c,
        Segments.packed([2]),
        discount=0.5,
    )
    assert found.tolist() == [1.5, torch.inf]


def test_a_hundred_thousand_steps():
    g = torch.Generator().manual_seed(0)
    length = 100_000
    x = torch.randn(3, length, generator=g, dtype=torch.float64)
    segments = Segments.packed([length])
    found = advantages.vtrace(
        x[0], x[1], torch.zeros(1), 0.1 * x[2], segments, discount=0.99, max_c=math.inf
    )
    assert all(bool(part.isfinite().all()) for part in found)
    n = advantages.n_step(x[0], x[1], torch.zeros(1), segments, discount=1.0, steps=length)
    close(n[0], math.fsum(x[0].tolist()), 1e-9)


def test_refuses_no_step():
    b = ragged([3], 0)
    with pytest.raises(ValueError, match="steps must be an integer of at least 1, got 0"):
        advantages.n_step(b.rewards, b.values, b.bootstrap, b.segments, discount=0.9, steps=0)
