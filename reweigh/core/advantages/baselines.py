"""Baselines and control variates: less variance for the same expectation.

A baseline leaves the expectation as it is if it carries the *same* weight as the continuation, and
that weight is a function of `s_0..s_t, a_<t`, times `ρ_t`, times future factors of mean one: the
scopes `step`, `prefix` and `trajectory` (of whole episodes), with or without state ratios. It
*changes* the expectation of terms without a ratio and of clipped, truncated or otherwise bounded
weights. It may depend on `s_0..s_t`, `a_<t` and on other episodes, not on what the episode does
from `a_t` on. Nothing here is differentiated.
"""

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.segments import Segments


@torch.no_grad()
def above_baseline(
    continuation: Tensor, log_weights: Tensor, baseline: Tensor, segments: Segments
) -> Tensor:
    """A weighted continuation above its baseline: `C_t - w_t b_t`.

    With prefix weights and `per_decision` as `C_t`, or `w_t G_t`, or `W G_t` with trajectory
    weights: `E_φ[w_t b_t score_t] = 0`, so the expected gradient is that without a baseline.

    Args:
        continuation: `[S]`, with its weight in it.
        log_weights: `[S]`, that weight: of the step, prefix or trajectory; `-inf` is legal.
        baseline: `[S]`, `b_t`, such as a critic's `V(s_t)`, or `leave_one_out_by_time`.
        segments: Where the episodes lie.

    Returns:
        `[S]` float64. With a baseline of 0 it is the continuation.

    Raises:
        ValueError: Another shape.
    """
    log_weights = segments.as_float64("log_weights", log_weights)
    baseline = segments.as_float64("baseline", baseline)
    # An infinite weight on nothing, or no weight on anything, is nothing.
    nothing = (baseline == 0) | (log_weights == -torch.inf)
    expected = torch.where(nothing, 0.0, log_weights.exp() * baseline)
    return segments.as_float64("continuation", continuation) - expected


@torch.no_grad()
def leave_one_out_by_time(continuation: Tensor, segments: Segments) -> Tensor:
    """The mean of the *other* episodes at the same time: `b_it = mean_{j≠i, alive at t} C_jt`.

    A baseline without a critic, independent of the episode it serves. The mean is over those that
    are alive, as this episode is at `t`: it stands for `E[C_t | alive at t]`. With episodes that
    ended counted as 0 it would be as unbiased and fit worse.

    Args:
        continuation: `[S]`, such as `reward_to_go`.
        segments: Where the episodes lie.

    Returns:
        `[S]` float64; 0 where no other episode is alive.

    Raises:
        ValueError: Another shape.
    """
    continuation = segments.as_float64("continuation", continuation)
    times = segments.most_steps
    if segments.has_fragments:
        times += int(segments.time_start.max())
    total = continuation.new_zeros(times).index_add(0, segments.time, continuation)
    alive = total.new_zeros(times).index_add(0, segments.time, segments.inside.double())
    others = (alive - 1).clamp(min=1)[segments.time]
    return segments.fill((total[segments.time] - continuation) / others)


@torch.no_grad()
def minimum_variance_constant(
    continuation: Tensor, log_weights: Tensor, squared_scores: Tensor, segments: Segments
) -> Tensor:
    """The best constant baseline: `b_i = Σ_{j≠i} Σ_t w C ‖score‖² / Σ_{j≠i} Σ_t w² ‖score‖²`.

    Greensmith et al. 2004, section 4.1; Peters and Schaal 2008, equation 11. As `N` grows, no other
    constant gives `Σ_t E‖(C_t - w_t b) score_t‖²` a smaller value. The sums leave out the episode
    that the baseline serves, which keeps the estimator unbiased.

    Args:
        continuation: `[S]`, with its weight in it.
        log_weights: `[S]`, that weight.
        squared_scores: `[S]`, `‖∇log π_θ(a_t|s_t)‖²`.
        segments: Where the episodes lie. Episodes of one step, with the score of the whole episode,
            give the baseline of whole episodes.

    Returns:
        `[S]` float64, constant within an episode, for `above_baseline`; 0 with a single episode. If
        every continuation is `w_t b`, it is `b`.

    Raises:
        ValueError: Another shape.
    """
    continuation = segments.as_float64("continuation", continuation)
    squared_scores = segments.as_float64("squared_scores", squared_scores)
    log_weights = segments.as_float64("log_weights", log_weights)
    # Weights relative to the largest: their squares overflow long before they do.
    highest = torch.cat([log_weights, log_weights.new_zeros(1)]).amax()
    weights = segments.fill((log_weights - highest).exp())
    above = _others(weights * ((-highest).exp() * continuation) * squared_scores, segments)
    below = _others(weights.square() * squared_scores, segments)
    return segments.spread(torch.where(below > 0, above / below, 0.0))


@torch.no_grad()
def control_variate(terms: Tensor, variates: Tensor, *, expectation: float) -> Tensor:
    """Terms less what a variate of known expectation explains: `x_i - β (v_i - E[v])`.

    `β = Σ (v_i - v̄) x_i / Σ (v_i - v̄)²`, the regression coefficient (Owen 2013, section 8.9). With
    `x = w R`, `v = w` and expectation 1 it is the regression estimator of importance sampling, as
    Metelli et al. 2018 (POIS) use it. Consistent; biased by `O(1/n)`, for β is of the same data.

    Args:
        terms: `[n]`, whose mean is the estimate.
        variates: `[n]`.
        expectation: `E[v]`, exactly.

    Returns:
        `[n]` float64. Terms that are linear in the variate, `a + b v_i`, all become `a + b E[v]`;
        variates that are all equal change nothing.

    Raises:
        ValueError: Shapes that differ.
    """
    contracts.vector("terms", terms, terms.numel(), "estimate")
    contracts.vector("variates", variates, terms.numel(), "term")
    contracts.at_least("the number of terms", terms.numel(), 1)
    terms, variates = terms.double(), variates.double()
    # In units of the largest deviation, whose square might overflow or vanish.
    deviations = variates - variates.mean()
    unit = deviations.abs().amax()
    deviations = torch.where(unit > 0, deviations / unit, 0.0)
    squares = deviations.square().sum()
    slope = torch.where(squares > 0, (deviations * terms).sum() / squares, 0.0)
    return terms - slope * torch.where(unit > 0, (variates - expectation) / unit, 0.0)


def _others(x: Tensor, segments: Segments) -> Tensor:
    """Sums `[N]` over all episodes but each: those before and those after, nothing subtracted."""
    own = segments.total(x)
    before = torch.nn.functional.pad(own[:-1].cumsum(0), (1, 0))
    after = torch.nn.functional.pad(own.flip(0)[:-1].cumsum(0), (1, 0)).flip(0)
    return before + after
