import pytest
import torch
from core_batches import ragged, ragged_lengths, seeds
from hypothesis import given, settings

from reweigh.core.scan import linear_recurrence, prefix_sum
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
