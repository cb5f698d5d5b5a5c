"""Several behaviour policies: which density a weight divides by."""

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.scan import prefix_sum
from reweigh.core.segments import Segments


def balance_heuristic(
    log_prob_target: Tensor, log_prob_sources: Tensor, proportions: Tensor, segments: Segments
) -> Tensor:
    """Prefix weight against the mixture of whole policies: `b_t = Π π_θ / Σ_j α_j Π π_j`.

    Each product runs over `k ≤ t`. Veach and Guibas 1995 (balance heuristic), for trajectories of
    which a share `α_j` was sampled by source `j` from start to end. `b_t ≤ w_t^(j) / α_j` for every
    source, so one close source keeps the weight small.

    Args:
        log_prob_target: `[S]`.
        log_prob_sources: `[J, S]`, of every logged action under every source.
        proportions: `[J]`, shares of the episodes.
        segments: Where the episodes lie; whole episodes.

    Returns:
        `[S]`. With one source it is `prefix`.

    Raises:
        ValueError: Another shape; shares that do not sum to 1; fragments.
    """
    contracts.precise("log_prob_target", log_prob_target)
    segments.require_whole("balance_heuristic")
    target = prefix_sum(segments.read("log_prob_target", log_prob_target), segments)
    sources = [prefix_sum(source, segments) for source in _read_sources(log_prob_sources, segments)]
    return segments.fill(target - _log_mix(torch.stack(sources), proportions))


def mixture(log_prob_sources: Tensor, proportions: Tensor, segments: Segments) -> Tensor:
    """Log-probability of a step under a mixture: `log Σ_j α_j π_j(a_t|s_t)`.

    The behaviour to divide by when steps, not trajectories, are what is mixed. The resulting ratio
    is at most `1 / α_j` times the ratio to source `j`, for every `j`.

    Args:
        log_prob_sources: `[J, S]`, of every logged action under every source.
        proportions: `[J]`, shares of the steps.
        segments: Where the episodes lie.

    Returns:
        `[S]`, the `log_prob_behaviour` of `log_ratios`. With one source it is that source.

    Raises:
        ValueError: Another shape; shares that do not sum to 1.
    """
    sources = _read_sources(log_prob_sources, segments)
    return segments.fill(_log_mix(torch.stack(sources), proportions))


def _log_mix(log_probs: Tensor, proportions: Tensor) -> Tensor:
    contracts.proportions("proportions", proportions, len(log_probs))
    return (log_probs + proportions.double().log().unsqueeze(1)).logsumexp(0)


def _read_sources(log_prob_sources: Tensor, segments: Segments) -> list[Tensor]:
    contracts.precise("log_prob_sources", log_prob_sources)
    return [
        segments.read(f"log_prob_sources[{j}]", source)
        for j, source in enumerate(log_prob_sources.detach())
    ]
