import math

import pytest
import torch
from core_batches import close, ragged, ragged_lengths, seeds
from hypothesis import given, settings

from reweigh.core import advantages, returns
from reweigh.core.segments import Segments

several = settings(max_examples=30, deadline=None, derandomize=True)
GAMMA = 0.9


def critic(b):
    """Rewards, V, Q and bootstrap, in the order of the arguments."""
    return b.rewards, b.values, b.advantages, b.bootstrap


def by_definition(b, traces, discount=GAMMA):
    """Oracle: equation 3 of Munos et al. 2016, backwards in time, in Python."""
    r, v, q = b.rewards.tolist(), b.values.tolist(), b.advantages.tolist()
    found = [0.0] * len(r)
    for i, (start, stop) in enumerate(
        zip(b.segments.start.tolist(), b.segments.stop.tolist(), strict=True)
    ):
        for t in reversed(range(start, stop)):
            if t == stop - 1:
                found[t] = r[t] + discount * float(b.bootstrap[i])
            else:
                correction = float(traces[t + 1]) * (found[t + 1] - q[t + 1])
                found[t] = r[t] + discount * (v[t + 1] + correction)
    return found


def named(b, trace_lambda):
    """Each function, and the trace that its paper gives it."""
    rho, greedy = b.ratios.exp(), b.behaviour > -0.5
    given = {"discount": GAMMA, "trace_lambda": trace_lambda}
    return {
        "retrace": (
            advantages.retrace(*critic(b), b.ratios, b.segments, **given),
            trace_lambda * rho.clamp(max=1.0),
        ),
        "tree_backup": (
            advantages.tree_backup(*critic(b), b.target, b.segments, **given),
            trace_lambda * b.target.exp(),
        ),
        "q_lambda": (
            advantages.q_lambda(*critic(b), greedy, b.segments, **given),
            trace_lambda * greedy.double(),
        ),
        "q_pi_lambda": (
            advantages.q_pi_lambda(*critic(b), b.segments, **given),
            torch.full_like(rho, trace_lambda),
        ),
        "importance sampling": (
            advantages.corrected_action_values(*critic(b), b.ratios, b.segments, discount=GAMMA),
            rho,
        ),
    }


@pytest.mark.parametrize("trace_lambda", [0.0, 0.7, 1.0])
@several
@given(lengths=ragged_lengths, seed=seeds)
def test_each_is_the_general_return_with_its_trace(trace_lambda, lengths, seed):
    b = ragged(lengths, seed)
    for found, traces in named(b, trace_lambda).values():
        close(found, by_definition(b, traces), 1e-9)


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_without_traces_all_are_the_one_step_target(lengths, seed):
    b = ragged(lengths, seed)
    want = advantages.one_step(b.rewards, b.values, b.bootstrap, b.segments, discount=GAMMA)
    for name, (found, _) in named(b, 0.0).items():
        if name != "importance sampling":
            close(found, want)


def test_on_policy_retrace_cuts_nothing():
    b = ragged([5, 3], 0)
    on_policy = torch.zeros_like(b.rewards)
    knobs = {"discount": GAMMA, "trace_lambda": 0.8}
    want = advantages.q_pi_lambda(*critic(b), b.segments, **knobs)
    close(advantages.retrace(*critic(b), on_policy, b.segments, **knobs), want)
    close(advantages.tree_backup(*critic(b), on_policy, b.segments, **knobs), want)
    close(
        advantages.q_lambda(*critic(b), torch.ones(8, dtype=torch.bool), b.segments, **knobs),
        want,
    )


def test_with_state_values_for_action_values_it_is_the_lambda_return():
    b = ragged([5, 3], 1)
    b.advantages = b.values
    knobs = {"discount": GAMMA, "trace_lambda": 0.8}
    close(
        advantages.q_pi_lambda(*critic(b), b.segments, **knobs),
        by_definition(b, [0.8] * 8),
    )
    monte_carlo = advantages.q_pi_lambda(*critic(b), b.segments, discount=GAMMA, trace_lambda=1.0)
    close(
        monte_carlo,
        returns.reward_to_go(b.rewards, b.segments, discount=GAMMA, bootstrap=b.bootstrap),
    )
    close(
        advantages.q_pi_lambda(*critic(b), b.segments, **knobs),
        b.values
        + advantages.gae(
            b.rewards, b.values, b.bootstrap, b.segments, discount=GAMMA, trace_lambda=0.8
        ),
    )


def test_importance_sampling_is_doubly_robust():
    b = ragged([5, 3], 2)
    residuals = returns.doubly_robust_values(
        b.rewards,
        b.ratios,
        b.values,
        b.advantages,
        b.segments,
        discount=GAMMA,
        bootstrap=b.bootstrap,
    ).residuals
    found = advantages.corrected_action_values(*critic(b), b.ratios, b.segments, discount=GAMMA)
    close(found, b.advantages + residuals)


def test_retrace_is_the_target_of_acer():
    """Wang et al. 2017, algorithm 2: one number carried backwards, the ratio applied after use."""
    b = ragged([6], 3)
    rho, carried, want = b.ratios.exp().tolist(), float(b.bootstrap[0]), [0.0] * 6
    for t in reversed(range(6)):
        carried = want[t] = float(b.rewards[t]) + GAMMA * carried
        carried = min(1.0, rho[t]) * (carried - float(b.advantages[t])) + float(b.values[t])
    close(advantages.retrace(*critic(b), b.ratios, b.segments, discount=GAMMA), want)


def test_the_first_trace_of_an_episode_does_not_matter():
    b = ragged([3, 2], 4)
    other = b.ratios.clone()
    other[[0, 3]] = -torch.inf
    for function in (advantages.retrace, advantages.corrected_action_values):
        close(
            function(*critic(b), other, b.segments, discount=GAMMA),
            function(*critic(b), b.ratios, b.segments, discount=GAMMA),
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_ratios(dtype):
    segments = Segments.packed([4])
    log_ratios = torch.tensor([0.0, -1e4, 1e4, 0.0], dtype=dtype)
    zero, one = torch.zeros(4, dtype=dtype), torch.ones(4, dtype=dtype)
    found = advantages.corrected_action_values(
        one, zero, zero, torch.zeros(1), log_ratios, segments, discount=1.0
    )
    # The ratios of steps 1 and 2 together are 1: rewards 0, 2 and 3 arrive.
    close(found[0], 3.0)
    assert not bool(found.isnan().any())
    bounded = advantages.retrace(
        one, zero, zero, torch.zeros(1), log_ratios, segments, discount=1.0
    )
    close(bounded, [1.0, 3.0, 2.0, 1.0])


def test_a_hundred_thousand_steps():
    x = torch.ones(100_000)
    found = advantages.q_pi_lambda(
        x, 0 * x, 0 * x, torch.zeros(1), Segments.packed([100_000]), discount=1.0, trace_lambda=1.0
    )
    assert found[0] == 100_000.0


def test_targets_are_constants():
    b = ragged([3], 0)
    b.values.requires_grad_(), b.target.requires_grad_()
    assert not any(found.requires_grad for found, _ in named(b, 0.5).values())


def test_refusals():
    b = ragged([3], 0)
    with pytest.raises(ValueError, match=r"trace_lambda must lie in \[0, 1\], got 1.5"):
        advantages.q_pi_lambda(*critic(b), b.segments, discount=GAMMA, trace_lambda=1.5)
    with pytest.raises(ValueError, match="discount must lie in"):
        advantages.q_pi_lambda(*critic(b), b.segments, discount=math.nan, trace_lambda=0.5)
    with pytest.raises(ValueError, match="greedy must be bool"):
        advantages.q_lambda(*critic(b), b.rewards, b.segments, discount=GAMMA, trace_lambda=0.5)
    with pytest.raises(ValueError, match=r"log_prob_target is torch\.bfloat16"):
        advantages.tree_backup(*critic(b), b.target.bfloat16(), b.segments, discount=GAMMA)
