"""A lower bound on the target's return, as the objective: trajectories instead of steps."""

import math

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.segments import Segments


def pois_bound(
    log_weights: Tensor,
    returns: Tensor,
    sample_size: Tensor,
    segments: Segments,
    *,
    delta: float,
    max_return: float | None = None,
) -> Tensor:
    """`(1/N) Σ_i W_i R_i - max|R| √((1-δ)/(δ n))`: what the return is above, with probability 1-δ.

    Metelli et al. 2018 (POIS), theorem 4.1 and section 5.1: how far to go from the behaviour is
    part of the objective. `n` says how many fresh episodes the weights are worth:
    `renyi_sample_size` as in the theorem, or `kish_sample_size`, which needs no divergence. The
    weights are differentiated here, not frozen.

    Args:
        log_weights: `[S]`, of trajectories; `weights.self_normalise` of them gives the
            self-normalised estimate.
        returns: `[N]`, of the logged episodes, discounted from their start; a constant.
        sample_size: Scalar, `n`; differentiated.
        segments: Where the episodes lie; whole episodes.
        delta: δ in (0, 1]; 1 takes the estimate for the truth, and a smaller δ keeps closer.
        max_return: What no return exceeds in magnitude. Without it, the largest of the batch.

    Returns:
        Scalar float64, to *maximise*. On-policy the penalty has gradient 0, and the rest is
        REINFORCE with the return of the whole episode.

    Raises:
        ValueError: Another shape; fragments; δ outside (0, 1]; a maximum that is not positive.
    """
    segments.require_whole("pois_bound")
    contracts.positive("delta", delta)
    contracts.between("delta", delta, 0, 1)
    returns = segments.episodes_as_float64("returns", returns).detach()
    largest = returns.abs().max()
    if max_return is not None:
        contracts.positive("max_return", max_return)
        largest = torch.full_like(largest, max_return)
    log_weight = segments.last(segments.as_float64("log_weights", log_weights))
    # A return of 0 may meet a weight that overflows.
    log_weight = torch.where(returns == 0, 0.0, log_weight)
    doubt = math.sqrt((1 - delta) / delta) * largest
    # Without doubt nothing is penalised, though the sample were worth nothing.
    penalty = doubt / torch.where(doubt == 0, 1.0, sample_size.double()).sqrt()
    return (log_weight.exp() * returns).mean() - penalty


def renyi_sample_size(divergences: Tensor, segments: Segments) -> Tensor:
    """`N / d̂_2` with `d̂_2 = (1/N) Σ_i exp(Σ_t D_2(π_θ(·|s_t) ‖ π_φ(·|s_t)))`.

    Metelli et al. 2018, section 5.1. `d_2 = E_φ[W²]` is the second moment of the trajectory weight,
    and `N/d_2` what the theorem divides by. The estimate uses the whole policies at the visited
    states, not the actions alone, and takes the states of the behaviour.

    Args:
        divergences: `[S]`, the Rényi divergence of order 2 of each step's policies, target from
            behaviour (`divergences.renyi2_categorical`, `renyi2_gaussian`).
        segments: Where the episodes lie; whole episodes.

    Returns:
        Scalar float64, differentiable; `N` where the policies agree, 0 where a divergence is
        infinite.

    Raises:
        ValueError: Another shape; fragments.
    """
    segments.require_whole("renyi_sample_size")
    divergences = segments.as_float64("divergences", divergences)
    infinite = divergences == torch.inf
    total = segments.total(torch.where(infinite, 0.0, divergences))
    size = (2 * math.log(len(segments)) - total.logsumexp(0)).exp()
    return torch.where(infinite.any(), 0.0, size)


def kish_sample_size(log_weights: Tensor, segments: Segments) -> Tensor:
    """`(Σ_i W_i)² / Σ_i W_i²` over the episodes' last weights, differentiable.

    Kish 1965, as the sample size of `pois_bound`. From the weights alone, so it is blind to what no
    episode of the batch did, and never above `N`.

    Args:
        log_weights: `[S]`, of trajectories. A shift changes nothing.
        segments: Where the episodes lie; whole episodes.

    Returns:
        Scalar float64: `N` for equal weights, with gradient 0; 0 if all weights are.

    Raises:
        ValueError: Another shape; fragments.
    """
    segments.require_whole("kish_sample_size")
    log_weight = segments.last(segments.as_float64("log_weights", log_weights))
    highest = log_weight.detach().max()
    weight = (log_weight - torch.where(highest == -torch.inf, 0.0, highest)).exp()
    squares = weight.square().sum()
    return weight.sum().square() / torch.where(squares == 0, 1.0, squares)
