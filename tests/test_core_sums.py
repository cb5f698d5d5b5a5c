import pytest
import torch
from core_batches import close

from reweigh.core.segments import Segments
from reweigh.core.sums import (
    kish_sample_size,
    log_sum_by_group,
    relative_weights,
    sum_of_others,
)


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_sums_by_group_are_those_of_each_group():
    x, group = normal(3, 40), torch.arange(40) % 4
    x[0, 7] = -torch.inf
    found = log_sum_by_group(x, group, 6)
    want = torch.stack([x[:, group == g].logsumexp(1) for g in range(4)], 1)
    close(found[:, :4], want)
    assert bool((found[:, 4:] == -torch.inf).all())
    close(log_sum_by_group(x[0], group, 6), found[0])


def test_sums_by_group_do_not_overflow_and_have_gradients():
    x = torch.tensor([1e4, 1e4, -1e4, -torch.inf, -torch.inf], dtype=torch.float64)
    group = torch.tensor([0, 0, 1, 1, 2])
    leaf = x.clone().requires_grad_()
    found = log_sum_by_group(leaf, group, 4)
    close(found.detach()[:2], [1e4 + torch.tensor(2.0).double().log().item(), -1e4])
    assert found.tolist()[2:] == [-torch.inf, -torch.inf]
    (gradient,) = torch.autograd.grad(found[:2].sum(), leaf)
    assert gradient.tolist() == [0.5, 0.5, 1.0, 0.0, 0.0]
    assert log_sum_by_group(torch.tensor([torch.inf, 0.0]), group[:2], 1).tolist() == [torch.inf]
    finite = normal(12).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda y: log_sum_by_group(y, torch.arange(12) % 3, 3), (finite,)
    )


def test_relative_weights_are_at_most_one_and_leave_holes_out():
    segments = Segments.packed([3], mask=torch.tensor([True, False, True]))
    x = torch.tensor([1e4, 2e4, 1e4 - 1.0], dtype=torch.float64)
    found = relative_weights(x, torch.zeros(3, dtype=torch.int64), 1, segments)
    close(found, [1.0, 0.0, torch.tensor(-1.0).double().exp().item()])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_sums_of_others(count):
    x = normal(count, 3)
    want = torch.stack([x[[j for j in range(count) if j != i]].sum(0) for i in range(count)])
    close(sum_of_others(x), want)


def test_sums_of_others_do_not_cancel():
    assert sum_of_others(torch.tensor([1.0, 1e300, 2.0], dtype=torch.float64)).tolist() == [
        *(1e300, 3.0, 1e300)
    ]


def test_the_sample_size_of_kish():
    log_weights = normal(9)
    w = log_weights.exp()
    found = kish_sample_size(log_weights.logsumexp(0), (2 * log_weights).logsumexp(0))
    close(found, w.sum().square() / w.square().sum())
    never = torch.tensor(-torch.inf)
    assert kish_sample_size(never, never).item() == 0.0
