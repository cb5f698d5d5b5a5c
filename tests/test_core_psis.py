import math

import pytest
import torch

from reweigh.core import weights
from reweigh.core.weights.psis import pareto_k_of_largest, tail_length
from reweigh.verify.golden import load


def close(found, want, tolerance=1e-12):
    want = torch.as_tensor(want, dtype=torch.float64)
    torch.testing.assert_close(found.double(), want, rtol=tolerance, atol=tolerance)


def pareto(count, k, seed):
    """Log-weights whose weights have a Pareto tail of shape `k`."""
    g = torch.Generator().manual_seed(seed)
    return -k * torch.rand(count, generator=g, dtype=torch.float64).log()


def smoothed_from_the_papers(log_weights):
    """Oracle: plain loops over one set of weights."""
    highest = max(log_weights)
    ratios = [math.exp(x - highest) for x in log_weights]
    order = sorted(range(len(ratios)), key=lambda i: ratios[i])
    n = tail_length(len(ratios))
    cutoff = ratios[order[-n - 1]]
    x = [ratios[i] - cutoff for i in order[-n:]]
    points = 30 + int(math.sqrt(n))
    quartile = x[int(n / 4 + 0.5) - 1]
    grid, likelihood = [], []
    for j in range(1, points + 1):
        b = 1 / x[-1] + (1 - math.sqrt(points / (j - 0.5))) / (3 * quartile)
        k = sum(math.log1p(-b * value) for value in x) / n
        grid.append(b)
        likelihood.append(n * (math.log(-b / k) - k - 1))
    total = [sum(math.exp(other - own) for other in likelihood) for own in likelihood]
    b = sum(value / share for value, share in zip(grid, total, strict=True))
    k = sum(math.log1p(-b * value) for value in x) / n
    sigma = -k / b
    k = (n * k + 5) / (n + 10)
    out = list(log_weights)
    for rank, i in enumerate(order[-n:]):
        quantile = cutoff + sigma * ((1 - (rank + 0.5) / n) ** -k - 1) / k
        out[i] = min(math.log(quantile), 0.0) + highest
    return out, k


@pytest.mark.parametrize("count", [25, 60, 225, 226, 700])
@pytest.mark.parametrize("k", [0.1, 0.6, 1.5])
def test_the_papers_in_plain_loops(count, k):
    log_weights = pareto(count, k, count) + 3.0
    want, k_hat = smoothed_from_the_papers(log_weights.tolist())
    found = weights.pareto_smooth(log_weights)
    close(found.log_weights, want, 1e-10)
    close(found.k_hat, k_hat, 1e-10)
    close(weights.pareto_k(log_weights), k_hat, 1e-10)


def test_the_golden_k_hats():
    cases = load()["numerics"]["khat"]
    assert len(cases) == 12
    for case in cases:
        x, state = [], case["lcg_seed"]
        for _ in range(case["S"]):
            state = (1664525 * state + 1013904223) % 2**32
            x.append((state + 0.5) / 2**32)
        log_weights = -case["true_k"] * torch.tensor(x, dtype=torch.float64).log()
        close(weights.pareto_k(log_weights), case["khat"], 1e-9)
        close(weights.pareto_smooth(log_weights).k_hat, case["khat"], 1e-9)


@pytest.mark.parametrize("k", [0.2, 0.7, 1.2])
def test_k_hat_finds_the_tail(k):
    found = weights.pareto_k(pareto(100_000, k, 0))
    assert found.item() == pytest.approx(k, abs=0.06)


def test_tails_in_numbers():
    assert [tail_length(n) for n in (0, 24, 25, 210, 226, 10_000)] == [0, 4, 5, 42, 45, 300]
    assert weights.k_hat_threshold(100) == pytest.approx(0.5)
    assert weights.k_hat_threshold(2154) < 0.7 == weights.k_hat_threshold(2155)
    assert weights.k_hat_threshold(1) == weights.k_hat_threshold(0) == -math.inf


def test_only_the_tail_is_smoothed_and_keeps_its_order():
    log_weights = pareto(400, 0.8, 1)
    found = weights.pareto_smooth(log_weights)
    order = log_weights.argsort()
    assert bool((found.log_weights[order].diff() >= 0).all())
    assert not bool(found.touched[order[:-60]].any())
    assert bool(found.touched[order[-60:-1]].all())
    assert found.fraction.item() == pytest.approx(found.touched.double().mean().item())
    assert bool((found.log_weights <= log_weights.max()).all())


def test_rows_are_smoothed_by_themselves():
    rows = torch.stack([pareto(60, k, seed) for seed, k in enumerate((0.1, 0.5, 2.0))])
    rows[1] += 500.0
    rows = rows.reshape(3, 1, 60).expand(3, 2, 60)
    together = weights.pareto_smooth(rows)
    assert together.k_hat.shape == (3, 2)
    for i in range(3):
        alone = weights.pareto_smooth(rows[i, 1])
        close(together.log_weights[i, 1], alone.log_weights)
        close(together.k_hat[i, 0], alone.k_hat)
        close(weights.pareto_k(rows)[i, 1], alone.k_hat)


@pytest.mark.parametrize("shift", [700.0, -5000.0, 1e4])
def test_a_shift_is_kept(shift):
    log_weights = pareto(300, 0.6, 2)
    close(
        weights.pareto_smooth(log_weights + shift).log_weights - shift,
        weights.pareto_smooth(log_weights).log_weights,
        1e-9,
    )
    close(weights.pareto_k(log_weights + shift), weights.pareto_k(log_weights), 1e-9)


def test_float32_weights_and_gradients():
    log_weights = pareto(300, 0.6, 2).float().requires_grad_()
    found = weights.pareto_smooth(log_weights)
    assert found.log_weights.dtype == torch.float64 and not found.log_weights.requires_grad
    close(found.k_hat, weights.pareto_k(pareto(300, 0.6, 2)), 1e-5)


def unchanged(log_weights, k_hat):
    found = weights.pareto_smooth(log_weights)
    assert found.k_hat.item() == weights.pareto_k(log_weights).item() == k_hat
    assert found.log_weights.tolist() == log_weights.tolist()
    assert found.fraction.item() == 0.0


@pytest.mark.parametrize("count", [0, 1, 4, 24])
def test_too_few_weights_have_no_tail(count):
    unchanged(pareto(count, 0.3, 0), math.inf)


@pytest.mark.parametrize("value", [0.0, 3.5, -900.0])
def test_equal_weights_have_no_tail_either(value):
    unchanged(torch.full((100,), value, dtype=torch.float64), -math.inf)
    # Truncated weights: all of the tail is at the bound.
    truncated = torch.cat([pareto(60, 0.3, 0) - 30.0, torch.zeros(40).double()]) + value
    unchanged(truncated, -math.inf)


def test_rounding_is_no_tail():
    g = torch.Generator().manual_seed(0)
    unchanged(torch.randn(100, generator=g, dtype=torch.float64) * 1e-15, -math.inf)


@pytest.mark.parametrize("positive", [0, 1, 10, 15])
def test_too_few_weights_above_zero(positive):
    log_weights = torch.full((100,), -torch.inf, dtype=torch.float64)
    log_weights[:positive] = pareto(positive, 0.5, 0)
    unchanged(log_weights, math.inf)


def test_a_quarter_of_the_tail_at_the_cutoff():
    """One policy is on-policy (weights 1), the other's weights are mostly smaller."""
    unchanged(torch.cat([torch.zeros(90).double(), pareto(10, 0.5, 0) + 0.1]), math.inf)
    # The largest weight leaves nothing of the others.
    unchanged(torch.cat([torch.zeros(99).double(), torch.tensor([800.0]).double()]), math.inf)


def test_weights_of_zero_below_the_tail_do_not_matter():
    log_weights = pareto(100, 0.5, 3)
    zeroed = torch.where(log_weights < log_weights.median(), -torch.inf, log_weights)
    close(weights.pareto_k(zeroed), weights.pareto_k(log_weights))
    found = weights.pareto_smooth(zeroed).log_weights
    assert found.isneginf().equal(zeroed.isneginf()) and not bool(found.isnan().any())


def test_ties_in_the_tail():
    log_weights = pareto(100, 0.5, 4).mul(4).round().div(4)
    want, k_hat = smoothed_from_the_papers(log_weights.tolist())
    found = weights.pareto_smooth(log_weights)
    close(found.k_hat, k_hat, 1e-10)
    close(found.log_weights.sort().values, sorted(want), 1e-10)


def test_a_point_of_the_grid_at_zero():
    """`θ = 0` there, and the exponential distribution's likelihood in place of 0/0."""
    # 34 points; the ninth is at 0 where the largest exceedance is thrice the quartile.
    exceedance = [0.1, 0.15, 0.2, 0.22, 0.25, *[0.25] * 14, 0.75]
    log_weights = torch.tensor([0.25] * 80 + [0.25 + x for x in exceedance]).double().log()
    found = weights.pareto_smooth(log_weights)
    nearby = weights.pareto_k(log_weights + 1e-9 * torch.arange(100) ** 2 / 1e4)
    assert found.k_hat.item() == pytest.approx(nearby.item(), abs=1e-6)
    assert bool(found.log_weights.isfinite().all())


@pytest.mark.parametrize("scale", [30.0, 1e4])
def test_extreme_weights(scale):
    g = torch.Generator().manual_seed(1)
    log_weights = scale * torch.randn(1000, generator=g, dtype=torch.float64)
    found = weights.pareto_smooth(log_weights)
    assert found.k_hat.item() > 5 and not bool(found.log_weights.isnan().any())
    assert found.log_weights.max().item() == log_weights.max().item()


def test_k_hat_from_the_largest_alone():
    log_weights = pareto(1000, 0.6, 5)
    ordered = log_weights.sort(descending=True).values
    want = weights.pareto_k(log_weights)
    for kept in (95, 500, 1000):
        close(pareto_k_of_largest(ordered[:kept], count=1000), want)
    # One fewer than the tail and its cutoff: the tail is shorter.
    assert pareto_k_of_largest(ordered[:94], count=1000).item() != want.item()
    assert pareto_k_of_largest(ordered[:5], count=1000).item() == math.inf
