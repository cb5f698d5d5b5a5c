"""The record of weights as plain numbers: the one place where diagnostics wait for the device."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from reweigh import contracts
from reweigh.core.diagnostics.health import BIN_LIMIT, BIN_WIDTH, WeightHealth
from reweigh.core.sums import kish_sample_size
from reweigh.core.weights.psis import k_hat_threshold, pareto_k_of_largest

_LOG_MAXIMUM = math.log(torch.finfo(torch.float64).max)


@dataclass(frozen=True)
class WeightReading:
    """The health of a set of weights, in numbers."""

    sample_size: int
    """Number of weights."""
    undefined: int
    """Number of further weights, NaN or infinite, which no other field counts."""
    mean: float
    """1 in expectation, since a weight is a ratio of two densities."""
    standard_error: float
    """Of the mean, where the weights are independent; NaN for one weight."""
    effective_sample_size: float
    """Kish's, in [0, sample_size]."""
    gradient_effective_sample_size: float
    """Of the weighted magnitudes, in [0, sample_size]; Kish's if none were given."""
    k_hat: float
    """The tail's shape, `weights.pareto_k`."""
    k_hat_threshold: float
    """The largest `k_hat` at which a mean of so many weights is reliable."""
    maximum: float
    """The largest weight."""
    quantiles: Mapping[float, float]
    """Of the weights: the smallest that at least this share of them does not exceed. Exact among
    the weights that the record keeps, otherwise within 1.6 % (0 where below `e^-32`)."""
    top_shares: Mapping[int, float]
    """The share of all weight that so many of the largest carry."""
    renyi2: float
    """`D_2(θ ‖ φ) = log(1 + χ²)`."""
    chi_square: float
    """`χ²(θ ‖ φ)`, the mean of `(w - 1)²`: a mean weight that is off counts too."""
    kl_from_behaviour: float
    """`KL(φ ‖ θ)`, in nats, the mean of `w - 1 - log w`."""
    kl_from_target: float
    """`KL(θ ‖ φ)`, in nats, the mean of `w log w - w + 1`."""

    @property
    def ess_share(self) -> float:
        """Effective sample size as a share of the weights; 0 if no weight exists."""
        return self.effective_sample_size / max(self.sample_size, 1)


@dataclass(frozen=True)
class HealthReading:
    """The health of all weights, and of each group's."""

    total: WeightReading
    """Of all groups as one."""
    groups: tuple[WeightReading, ...]
    """Of each group by itself."""
    weight_shares: tuple[float, ...]
    """The share of all weight that each group carries: in expectation, its share of the weights."""


def read(
    health: WeightHealth,
    *,
    quantiles: Sequence[float] = (0.01, 0.1, 0.5, 0.9, 0.99),
    top: Sequence[int] = (1, 10),
) -> HealthReading:
    """The record in numbers; waits for the device, once.

    Divergences are of action distributions if the weights are of steps, of trajectory distributions
    if they are of episodes.

    Args:
        health: A record, merged over all parts of the batch.
        quantiles: Which quantiles, each in (0, 1].
        top: Numbers of largest weights whose share is given; no more than the record keeps.

    Raises:
        ValueError: A quantile outside (0, 1]; more of the largest weights than the record keeps.
    """
    for quantile in quantiles:
        contracts.require_between("quantiles", quantile, math.ulp(0), 1)
    keep = health.largest.shape[-1]
    for k in top:
        if not 1 <= k <= keep:
            raise ValueError(
                f"top asks for the share of {k} weights, the record keeps {keep}: build it with a "
                "larger keep"
            )
    pooled = zip(health.pooled(), health, strict=True)
    rows = _to_host(WeightHealth(*(torch.cat(pair) for pair in pooled)))
    total, *groups = (_read_row(row, quantiles, top) for row in rows)
    log_sums = [float(row.log_sum) for row in rows]
    shares = tuple(_exp(x - log_sums[0]) if x > -math.inf else 0.0 for x in log_sums[1:])
    return HealthReading(total, tuple(groups), shares)


def _to_host(health: WeightHealth) -> list[WeightHealth]:
    """Every group's record, on the CPU: one transfer."""
    shapes = [x.shape[1:] for x in health]
    table = torch.cat([x.double().reshape(len(x), -1) for x in health], dim=1).cpu()
    return [
        WeightHealth(*(x.reshape(s) for x, s in zip(parts, shapes, strict=True)))
        for parts in (row.split([s.numel() for s in shapes]) for row in table)
    ]


def _read_row(row: WeightHealth, quantiles: Sequence[float], top: Sequence[int]) -> WeightReading:
    count = int(row.sample_size)
    log_sum, log_squares = float(row.log_sum), float(row.log_sum_of_squares)
    log_count = math.log(count) if count else math.nan
    size = float(kish_sample_size(row.log_sum, row.log_sum_of_squares))
    mean = _exp(log_sum - log_count)
    chi_square = _chi_square(mean, log_squares - log_count)
    return WeightReading(
        sample_size=count,
        undefined=int(row.undefined),
        mean=mean,
        standard_error=mean * math.sqrt(max(1 / size - 1 / count, 0.0))
        if size and count > 1
        else math.nan,
        effective_sample_size=size,
        gradient_effective_sample_size=float(
            kish_sample_size(row.log_gradient, row.log_gradient_of_squares)
        ),
        k_hat=float(pareto_k_of_largest(row.largest, count=count)),
        k_hat_threshold=k_hat_threshold(count),
        maximum=_exp(float(row.largest[0])),
        quantiles={q: _quantile(row, count, q) for q in quantiles},
        top_shares={
            k: _exp(float(row.largest[:k].logsumexp(0)) - log_sum) if size else math.nan
            for k in top
        },
        # Where χ² overflows, 1 and the mean are negligible beside the second moment.
        renyi2=math.log1p(chi_square) if chi_square < math.inf else log_squares - log_count,
        chi_square=chi_square,
        kl_from_behaviour=_exp(float(row.log_kl_from_behaviour) - log_count),
        kl_from_target=_exp(float(row.log_kl_from_target) - log_count),
    )


def _chi_square(mean: float, log_second_moment: float) -> float:
    if log_second_moment > _LOG_MAXIMUM:
        return math.inf
    return max(_exp(log_second_moment) - 2 * mean + 1, 0.0)


def _quantile(row: WeightHealth, count: int, quantile: float) -> float:
    """The weight of rank `⌈q n⌉`: exact among the largest, else the middle of its bin."""
    if count == 0:
        return math.nan
    # In float64 0.07 * 100 is a little more than 7.
    rank = max(math.ceil(quantile * count - 1e-9), 1)
    from_top = count - rank
    if from_top < len(row.largest):
        return _exp(float(row.largest[from_top]))
    place = int((row.histogram.cumsum(0) < rank).sum())
    return _exp((place - 0.5) * BIN_WIDTH - BIN_LIMIT) if place else 0.0


def _exp(x: float) -> float:
    return math.inf if x > _LOG_MAXIMUM else math.exp(x)
