import math

import pytest
import torch
from core_batches import ragged, ragged_lengths, seeds
from hypothesis import given, settings

from reweigh.core.scan import (
    linear_recurrence,
    max_plus_recurrence,
    prefix_sum,
    times,
    unscale,
    weighted_recurrence,
)
from reweigh.core.segments import Segments

several = settings(max_examples=40, deadline=None, derandomize=True)


def spans(segments):
    return list(zip(segments.start.tolist(), segments.stop.tolist(), strict=True))


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_prefix_sum_is_the_loop(lengths, seed):
    batch = ragged(lengths, seed)
    want = [batch.rewards[a:b].cumsum(0) for a, b in spans(batch.segments)]
    torch.testing.assert_close(prefix_sum(batch.rewards, batch.segments), torch.cat(want))


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_linear_recurrence_is_the_loop(lengths, seed):
    batch = ragged(lengths, seed)
    x, a, want = batch.rewards.tolist(), batch.values.tolist(), [0.0] * sum(lengths)
    for start, stop in spans(batch.segments):
        later = 0.0
        for t in reversed(range(start, stop)):
            later = want[t] = x[t] + a[t] * later
    found = linear_recurrence(batch.rewards, batch.values, batch.segments)
    torch.testing.assert_close(found, torch.tensor(want, dtype=torch.float64))


@pytest.mark.parametrize("lengths", [[1], [7], [3, 0, 5, 1]])
def test_both_have_the_right_gradient(lengths):
    batch = ragged(lengths, 0)
    x, a = batch.rewards.requires_grad_(), batch.values.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: prefix_sum(x, batch.segments), x)
    assert torch.autograd.gradcheck(lambda x, a: linear_recurrence(x, a, batch.segments), (x, a))


def test_minus_infinity_stays_where_it_is():
    segments = Segments.packed([3, 2])
    x = torch.tensor([1.0, -torch.inf, 2.0, 3.0, 4.0], dtype=torch.float64, requires_grad=True)
    total = prefix_sum(x, segments)
    assert total.tolist() == [1.0, -torch.inf, -torch.inf, 3.0, 7.0]
    (gradient,) = torch.autograd.grad(total[3:].sum(), x)
    assert gradient.tolist() == [0.0, 0.0, 0.0, 2.0, 1.0]


def test_infinity_beyond_the_boundary_is_not_multiplied():
    segments = Segments.packed([2, 2])
    x = torch.tensor([1.0, 1.0, torch.inf, 1.0], dtype=torch.float64, requires_grad=True)
    a = torch.tensor([0.5, torch.inf, 2.0, 0.0], dtype=torch.float64, requires_grad=True)
    value = linear_recurrence(x, a, segments)
    assert value[:2].tolist() == [1.5, 1.0]
    gradients = torch.autograd.grad(value[:2].sum(), (x, a))
    assert gradients[0].tolist() == [1.0, 1.5, 0.0, 0.0]
    assert gradients[1].tolist() == [1.0, 0.0, 0.0, 0.0]


def test_a_hundred_thousand_steps():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(100_000, generator=g, dtype=torch.float64) * 0.1
    # Integers in float64 add exactly: no rounding at all may be left.
    whole = (x * 2**20).round()
    assert torch.equal(prefix_sum(whole, Segments.packed([len(x)])), whole.cumsum(0))


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_max_plus_recurrence_is_the_loop(lengths, seed):
    batch = ragged(lengths, seed)
    x, a, want = batch.rewards.tolist(), batch.values.tolist(), [0.0] * sum(lengths)
    for start, stop in spans(batch.segments):
        later = -torch.inf
        for t in reversed(range(start, stop)):
            later = want[t] = max(x[t], a[t] + later)
    found = max_plus_recurrence(batch.rewards, batch.values, batch.segments)
    torch.testing.assert_close(found, torch.tensor(want, dtype=torch.float64))


def test_minus_infinity_in_a_maximum():
    x = torch.tensor([-torch.inf, 1.0, 5.0], dtype=torch.float64)
    a = torch.tensor([-torch.inf, -torch.inf, 1e4], dtype=torch.float64)
    found = max_plus_recurrence(x, a, Segments.packed([3]))
    assert found.tolist() == [-torch.inf, 1.0, 5.0]


def test_what_is_scaled_overflows_only_if_it_must():
    value = torch.tensor([1.0, 0.0, 1e-300, -2.0, 3.0], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([0.0, 1e4, 1000.0, 1e4, -torch.inf], dtype=torch.float64)
    scale.requires_grad_()
    found = unscale(value, scale)
    representable = pytest.approx(math.exp(1000.0 - 300.0 * math.log(10.0)), rel=1e-9)
    assert found.tolist() == [1.0, 0.0, representable, -torch.inf, 0.0]
    # Nothing asks for the infinite ones: nothing becomes NaN.
    gradients = torch.autograd.grad(found[[0, 2, 4]].sum(), (value, scale))
    assert not any(bool(g.isnan().any()) for g in gradients)
    assert gradients[0][[1, 3]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_what_is_broken_in_one_episode_stays_there(broken):
    segments = Segments.packed([3, 3, 2])
    x = torch.ones(8, dtype=torch.float64)
    x[3:6] = broken
    for a in (torch.zeros(8).double(), torch.full((8,), 0.5).double()):
        found = linear_recurrence(x, a, segments)
        whole = linear_recurrence(torch.ones(8).double(), a, segments)
        assert found[[0, 1, 2, 6, 7]].tolist() == whole[[0, 1, 2, 6, 7]].tolist()


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_the_weighted_recurrence_is_the_loop(lengths, seed):
    b = ragged(lengths, seed)
    x, w, c = (y.tolist() for y in (b.rewards, b.values.exp(), b.advantages.exp()))
    want = [0.0] * sum(lengths)
    for start, stop in spans(b.segments):
        later = 0.0
        for t in reversed(range(start, stop)):
            later = want[t] = w[t] * x[t] + 0.9 * 0.8 * c[t] * later
    found = weighted_recurrence(
        b.rewards, b.values, b.advantages, b.segments, discount=0.9, trace_lambda=0.8
    )
    torch.testing.assert_close(unscale(*found), torch.tensor(want, dtype=torch.float64))
    assert bool((found[1] >= 0).all()) and bool(found[0].isfinite().all())


@pytest.mark.parametrize("factors", [(0.0, 1.0), (1.0, 0.0)])
def test_a_factor_of_zero_cuts_an_infinite_coefficient(factors):
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(2, dtype=torch.float64)
    decay = torch.tensor([800.0, 0.0], dtype=torch.float64, requires_grad=True)
    discount, trace_lambda = factors
    found = weighted_recurrence(
        x, zero, decay, Segments.packed([2]), discount=discount, trace_lambda=trace_lambda
    )
    assert unscale(*found).tolist() == [1.0, 1.0]
    assert torch.autograd.grad(unscale(*found).sum(), x)[0].tolist() == [1.0, 1.0]
    infinite = torch.tensor([torch.inf, 1.0])
    assert times(0.0, infinite).tolist() == [0.0, 0.0]
    assert times(2.0, infinite).tolist() == [torch.inf, 2.0]
