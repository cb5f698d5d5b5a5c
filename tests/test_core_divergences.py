import math

import pytest
import torch
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from reweigh.core import divergences
from reweigh.core.segments import Segments

CATEGORICAL = [
    divergences.kl_categorical,
    divergences.renyi2_categorical,
]
GAUSSIAN = [
    divergences.kl_gaussian,
    divergences.renyi2_gaussian,
]


def close(found, want, tolerance=1e-12):
    want = torch.as_tensor(want, dtype=torch.float64)
    torch.testing.assert_close(found, want, rtol=tolerance, atol=tolerance)


def normal(seed, *shape):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def gaussians(seed, steps, dimensions):
    """Two policies, the first's variance below twice the second's: `p, q` as four tensors."""
    deviation_q = normal(seed + 2, steps, dimensions).exp()
    deviation_p = deviation_q * (0.3 + 1.1 * normal(seed + 3, steps, dimensions).sigmoid())
    mean_q = normal(seed + 1, steps, dimensions)
    mean_p = mean_q + 0.7 * deviation_q * normal(seed, steps, dimensions)
    return mean_p, deviation_p, mean_q, deviation_q


def test_categorical_divergences_are_sums_over_the_actions():
    p, q = normal(0, 9, 5), normal(1, 9, 5)
    steps = Segments.packed([4, 5])
    mass_p, mass_q = p.softmax(1), q.softmax(1)
    want = (mass_p * (mass_p / mass_q).log()).sum(1)
    close(divergences.kl_categorical(p, q, steps), want)
    close(
        divergences.kl_categorical(p, q, steps),
        kl_divergence(Categorical(logits=p), Categorical(logits=q)),
    )
    want = (mass_q * (mass_p / mass_q) ** 2).sum(1)
    close(divergences.renyi2_categorical(p, q, steps).exp(), want)


def test_gaussian_divergences_are_integrals_over_the_actions():
    mean_p, deviation_p, mean_q, deviation_q = gaussians(0, 6, 1)
    steps = Segments.packed([6])
    action = torch.linspace(-1, 1, 200_001, dtype=torch.float64).unsqueeze(1) * 90
    log_p = Normal(mean_p.squeeze(1), deviation_p.squeeze(1)).log_prob(action)
    log_q = Normal(mean_q.squeeze(1), deviation_q.squeeze(1)).log_prob(action)
    given = (mean_p, deviation_p, mean_q, deviation_q, steps)
    kl = torch.trapezoid(log_p.exp() * (log_p - log_q), action, dim=0)
    close(divergences.kl_gaussian(*given), kl, 1e-7)
    second_moment = torch.trapezoid((2 * log_p - log_q).exp(), action, dim=0)
    close(divergences.renyi2_gaussian(*given).exp(), second_moment, 1e-7)


def test_dimensions_add_up():
    given = gaussians(3, 5, 4)
    steps = Segments.packed([5])
    for function in (divergences.kl_gaussian, divergences.renyi2_gaussian):
        each = [function(*(x[:, d : d + 1] for x in given), steps) for d in range(4)]
        close(function(*given, steps), torch.stack(each).sum(0))
    want = kl_divergence(
        Independent(Normal(*given[:2]), 1), Independent(Normal(given[2], given[3]), 1)
    )
    close(divergences.kl_gaussian(*given, steps), want)


def test_the_gaussian_order_two_in_numbers():
    """With equal deviations it is the squared shift; variances count, not deviations."""
    one = Segments.packed([1])
    shift, deviation = torch.tensor([[3.0]]), torch.tensor([[2.0]])
    found = divergences.renyi2_gaussian(shift, deviation, torch.zeros(1, 1), deviation, one)
    close(found, [9 / 4])
    zero = torch.zeros(1, 1)
    found = divergences.renyi2_gaussian(zero, torch.ones(1, 1), zero, deviation, one)
    # E_q[(p/q)^2] of N(0, 1) to N(0, 2^2): 4 / (1 sqrt(2 * 4 - 1)).
    close(found, [math.log(4 / math.sqrt(7))])


@pytest.mark.parametrize("function", CATEGORICAL)
def test_equal_categorical_policies(function):
    p = normal(4, 7, 3)
    close(function(p, p + 5.0, Segments.packed([7])), torch.zeros(7))


@pytest.mark.parametrize("function", GAUSSIAN)
def test_equal_gaussian_policies(function):
    mean, deviation, _, _ = gaussians(4, 7, 3)
    close(function(mean, deviation, mean, deviation, Segments.packed([7])), torch.zeros(7))


def test_divergences_keep_their_order():
    """`KL ≤ D_2`: Rényi divergences grow with their order, and KL is of order 1."""
    steps = Segments.packed([50])
    p, q, given = normal(5, 50, 4), normal(6, 50, 4), gaussians(7, 50, 3)
    for (kl, renyi2), policies in ((CATEGORICAL, (p, q)), (GAUSSIAN, given)):
        assert bool((renyi2(*policies, steps) >= kl(*policies, steps)).all())


def test_the_second_moment_of_the_weight():
    """The Rényi divergence is to the behaviour: actions come from `q`."""
    steps = Segments.packed([1])
    p, q = (torch.tensor([x], dtype=torch.float64) for x in ([0.9, 0.1], [0.5, 0.5]))
    close(divergences.renyi2_categorical(p.log(), q.log(), steps).exp(), [1.62 + 0.02])
    close(divergences.renyi2_categorical(q.log(), p.log(), steps).exp(), [0.25 / 0.9 + 2.5])


@pytest.mark.parametrize("function", CATEGORICAL)
def test_categorical_gradients(function):
    steps = Segments.packed([3])
    p, q = normal(8, 3, 4).requires_grad_(), normal(9, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, q: function(p, q, steps), (p, q))


@pytest.mark.parametrize("function", GAUSSIAN)
def test_gaussian_gradients(function):
    steps = Segments.packed([3])
    given = [x.requires_grad_() for x in gaussians(10, 3, 2)]
    assert torch.autograd.gradcheck(lambda *x: function(*x, steps), given)


@pytest.mark.parametrize("function", CATEGORICAL)
def test_actions_that_a_policy_never_takes(function):
    steps = Segments.packed([3])
    never = -torch.inf
    p = torch.tensor([[0.0, never, 1.0], [0.0, 2.0, 1.0], [0.5, never, 0.0]], requires_grad=True)
    q = torch.tensor([[1.0, 0.0, 0.0], [0.0, never, 1.0], [0.0, never, 0.0]], requires_grad=True)
    found = function(p, q, steps)
    assert found.isinf().tolist() == [False, True, False]
    without = [0, 2]
    close(
        found[2],
        function(p[2:, without], q[2:, without], Segments.packed([1]))[0],
    )
    gradients = torch.autograd.grad(found[[0, 2]].sum() + found[1] * 1.0, (p, q))
    for gradient in gradients:
        assert bool(gradient.isfinite().all())
        assert gradient[1].tolist() == [0.0, 0.0, 0.0]
        assert bool((gradient[0] != 0).any())


@pytest.mark.parametrize("wider", [math.sqrt(2), 1.5, 1e200])
def test_a_target_too_wide_has_no_second_moment(wider):
    steps = Segments.packed([2])
    # One of two dimensions is too wide, in the first step only.
    deviation_p = torch.tensor([[1.0, wider], [1.0, 1.4]], dtype=torch.float64)
    given = [torch.ones(2, 2), deviation_p, torch.zeros(2, 2), torch.ones(2, 2)]
    given = [x.double().requires_grad_() for x in given]
    found = divergences.renyi2_gaussian(*given, steps)
    assert found.isinf().tolist() == [True, False] and bool(found[0] > 0)
    for gradient in torch.autograd.grad(found.sum(), given):
        assert bool(gradient.isfinite().all())
        assert gradient[0].tolist() == [0.0, 0.0] and bool((gradient[1] != 0).all())


def test_extreme_logits():
    steps = Segments.packed([1])
    p = torch.tensor([[1e4, 0.0]], requires_grad=True)
    q = torch.tensor([[0.0, 1e4]], requires_grad=True)
    for function, want in zip(CATEGORICAL, (1e4, 1e4), strict=True):
        found = function(p, q, steps)
        close(found.detach(), [want])
        for gradient in torch.autograd.grad(found.sum(), (p, q)):
            assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("function", CATEGORICAL)
def test_refuses_policies_over_different_actions(function):
    with pytest.raises(ValueError, match=r"one shape, got \[2, 3\] and \[2, 4\]"):
        function(torch.zeros(2, 3), torch.zeros(2, 4), Segments.packed([2]))


@pytest.mark.parametrize("function", GAUSSIAN)
def test_refuses_what_are_no_gaussians(function):
    steps, x = Segments.packed([2]), torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"deviation_q must have one shape.*\[2, 3\] and \[3\]"):
        function(x, x, x, torch.ones(3), steps)
    with pytest.raises(ValueError, match=r"mean_p and mean_q must have one shape"):
        function(x, x, x[:, :1], x, steps)
    with pytest.raises(ValueError, match=r"deviation_p must be positive, got -1"):
        function(x, -x, x, x, steps)
