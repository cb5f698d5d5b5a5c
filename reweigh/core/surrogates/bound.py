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
    """Lower bound of the return with probability 1-δ: `(1/N) Σ_i W_i R_i - max|R| √((1-δ)/(δ n))`.

    Metelli et al. 2018 (POIS), theorem 4.1 and section 5.1: how far to go from the behaviour is
    part of the objective. `n` is the number of fresh episodes that the weights are worth, in the
    theorem `renyi_sample_size`. The weights are differentiated here, not frozen.

    Args:
        log_weights: `[S]`, of trajectories; `weights.self_normalise` of them gives the
            self-normalised estimate.
        returns: `[N]`, of the logged episodes, discounted from their start; a constant.
        sample_size: Scalar, `n`; differentiated.
        segments: Whole episodes.
        delta: δ in (0, 1]; 1 is without a penalty, and a smaller δ keeps closer.
        max_return: A bound on the magnitude of any return. Without it, the largest of the batch.

    Returns:
        Scalar float64, to *maximise*. On-policy the penalty has gradient 0, and the rest is
        REINFORCE with the return of the whole episode.

    Raises:
        ValueError: Wrong shape; fragments; δ outside (0, 1]; a maximum that is not positive.
    """
    segments.require_whole("pois_bound")
    contracts.require_positive("delta", delta)
    contracts.require_between("delta", delta, 0, 1)
    returns = segments.episodes_as_float64("returns", returns).detach()
    largest = returns.abs().max()
    if max_return is not None:
        contracts.require_positive("max_return", max_return)
        largest = torch.full_like(largest, max_return)
    log_weight = segments.last(segments.as_float64("log_weights", log_weights))
    # A return of 0 may meet a weight that overflows, and inf * 0 is NaN.
    log_weight = torch.where(returns == 0, 0.0, log_weight)
    doubt = math.sqrt((1 - delta) / delta) * largest
    # The penalty is 0 without doubt, even if the sample size is 0 and the quotient would be 0/0.
    penalty = doubt / torch.where(doubt == 0, 1.0, sample_size.double()).sqrt()
    return (log_weight.exp() * returns).mean() - penalty


def renyi_sample_size(divergences: Tensor, segments: Segments) -> Tensor:
    """`N / d̂_2` with `d̂_2 = (1/N) Σ_i exp(Σ_t D_2(π_θ(·|s_t) ‖ π_φ(·|s_t)))`.

    Metelli et al. 2018, section 5.1. `d_2 = E_φ[W²]` is the second moment of the trajectory weight,
    and the theorem divides by `N/d_2`. The estimate uses the whole policies at the visited
    states, not the actions alone, and takes the states of the behaviour.

    Args:
        divergences: `[S]`, the Rényi divergence of order 2 of each step's policies, target from
            behaviour (`divergences.renyi2_categorical`, `renyi2_gaussian`).
        segments: Whole episodes.

    Returns:
        Scalar float64, differentiable; `N` where the policies agree, 0 where a divergence is
        infinite.

    Raises:
        ValueError: Wrong shape; fragments.
    """
    segments.require_whole("renyi_sample_size")
    divergences = segments.as_float64("divergences", divergences)
    infinite = divergences == torch.inf
    total = segments.total(torch.where(infinite, 0.0, divergences))
    size = (2 * math.log(len(segments)) - total.logsumexp(0)).exp()
    return torch.where(infinite.any(), 0.0, size)
