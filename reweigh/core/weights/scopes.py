"""Scopes: the ratios that multiply to a step's weight.

With `ρ_t = π_θ(a_t|s_t) / π_φ(a_t|s_t)`: the ratio of the step, of all steps so far, of the whole
episode, their geometric mean, of a window or of the turns so far, or of the step together with the
ratio of the states' marginal distributions. All are log-weights.
"""

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.scan import prefix_sum, window_sum
from reweigh.core.segments import Segments


def step(log_ratios: Tensor, segments: Segments) -> Tensor:
    """The ratio of the step alone: `ρ_t`.

    Corrects the action and leaves states and rewards as the behaviour visited them: the weight of
    the TRPO, PPO and IMPALA surrogates. Its variance does not grow with the horizon.
    """
    contracts.require_full_precision("log_ratios", log_ratios)
    return segments.as_float64("log_ratios", log_ratios)


def prefix(
    log_ratios: Tensor, segments: Segments, *, log_weight_start: Tensor | None = None
) -> Tensor:
    """The product of the ratios so far, this step's included: `w_t = Π_{k≤t} ρ_k`.

    Corrects the state and the action: `E_φ[w_t f(s_0..a_t)] = E_θ[f(s_0..a_t)]` (Precup et al.
    2000, section 3). `E_φ[w_t²]` grows exponentially in `t`.

    Args:
        log_ratios: `[S]`.
        log_weight_start: `[N]`, the log-weight of the episode's earlier steps. Needed
            if any episode is a fragment. Zeros restart the weight at 1, and so take the behaviour's
            state distribution at the cut for the target's.

    Returns:
        `[S]`. With one step an episode, it is `step`.

    Raises:
        ValueError: Wrong shape; fragments without `log_weight_start`.
    """
    start = _start(segments, log_weight_start)
    return prefix_sum(step(log_ratios, segments), segments) + segments.spread(start)


def exclusive_prefix(
    log_ratios: Tensor, segments: Segments, *, log_weight_start: Tensor | None = None
) -> Tensor:
    """The product of the ratios before this step: `w_{t-1} = Π_{k<t} ρ_k`.

    Corrects the state alone: `E_φ[w_{t-1} f(s_0..s_t)] = E_θ[f(s_0..s_t)]`. It is the weight of a
    sum over all actions of the target, as in the doubly robust gradient; on a sampled action it is
    biased, where `prefix` is not.

    Args:
        log_ratios: `[S]`.
        log_weight_start: `[N]`, as in `prefix`.

    Returns:
        `[S]`, at each episode's first step the start. Plus `step`, it is `prefix`.

    Raises:
        ValueError: As `prefix`.
    """
    start = _start(segments, log_weight_start)
    ratios = step(log_ratios, segments)
    # Summed without this step's ratio, not less it: -inf - (-inf) is NaN.
    earlier = prefix_sum(segments.previous(ratios, torch.zeros_like(start)), segments)
    return earlier + segments.spread(start)


def trajectory(
    log_ratios: Tensor, segments: Segments, *, log_weight_start: Tensor | None = None
) -> Tensor:
    """The product of all of the episode's ratios, at each of its steps: `W = Π_{k<T} ρ_k`.

    The last `prefix` weight. Corrects whole trajectories: `E_φ[W f(τ)] = E_θ[f(τ)]`. Over the
    segments of turns (`segments.split`) it is the product within each turn.

    Args:
        log_ratios: `[S]`; each segment reaches the end of its episode.
        log_weight_start: `[N]`, as in `prefix`.

    Returns:
        `[S]`, constant within an episode.

    Raises:
        ValueError: As `prefix`.
    """
    start = _start(segments, log_weight_start)
    return segments.spread(segments.total(step(log_ratios, segments)) + start)


def geometric_mean(log_ratios: Tensor, segments: Segments) -> Tensor:
    """The geometric mean of the episode's ratios, at each of its steps: `W^(1/T)`.

    Zheng et al. 2025 (GSPO), section 4.1. Bounded in practice and of low variance, but a power of
    the trajectory's ratio: every estimate is biased unless `θ = φ` or `T = 1`.

    Args:
        log_ratios: `[S]`.
        segments: Whole episodes, or turns.

    Returns:
        `[S]`, constant within an episode. With one step an episode, it is `step`.

    Raises:
        ValueError: Wrong shape; fragments, whose earlier ratios are missing.
    """
    segments.require_whole("geometric_mean")
    total = segments.total(step(log_ratios, segments))
    return segments.spread(total / segments.lengths.clamp(min=1))


def window(log_ratios: Tensor, segments: Segments, *, steps: int) -> Tensor:
    """The product of the last ratios, this step's included: `Π_{t-steps<k≤t} ρ_k`.

    Between `step` (a window of 1) and `prefix` (a window as long as the episode): the state
    distribution is the target's as far as the last `steps - 1` actions decide it. Biased in
    between; the second moment grows with the window instead of the horizon.

    Args:
        log_ratios: `[S]`.
        steps: Length of the window, at least 1.

    Returns:
        `[S]`.

    Raises:
        ValueError: Wrong shape; a window below 1.
    """
    contracts.require_at_least("steps", steps, 1)
    return window_sum(step(log_ratios, segments), segments, steps=steps)


def turn_prefix(
    log_ratios: Tensor,
    turns: Segments,
    segments: Segments,
    *,
    log_weight_start: Tensor | None = None,
) -> Tensor:
    """The product of the ratios up to the end of the step's turn.

    The `prefix` weight where a whole turn (a message of many tokens, a macro-action) is one action:
    every step of the turn carries the product over the turns so far, its own included.

    Args:
        log_ratios: `[S]`.
        turns: Where the turns lie, from `segments.split`.
        log_weight_start: `[N]`, as in `prefix`.

    Returns:
        `[S]`, constant within a turn. With turns of one step it is `prefix`; with one turn an
        episode, `trajectory`.

    Raises:
        ValueError: As `prefix`.
    """
    so_far = prefix(log_ratios, segments, log_weight_start=log_weight_start)
    return turns.spread(turns.last(so_far))


def state_marginal(
    log_ratios: Tensor, log_state_ratios: Tensor, segments: Segments, *, steps: int = 1
) -> Tensor:
    """The states' ratio where a window begins, times the ratios in it: `m_{t-k+1} Π_{t-k<j≤t} ρ_j`.

    With `m_t = d_t^θ(s_t) / d_t^φ(s_t)`, the ratio of the state marginals, it corrects state and
    action (Liu et al. 2018): `E_φ[m_t ρ_t f(s_t, a_t)] = E_θ[f(s_t, a_t)]`. Its second moment does
    not grow with the horizon. A longer window trades variance for the error of an estimated `m`
    (`core.marginal` has estimators), which then counts some steps earlier.

    Args:
        log_ratios: `[S]`.
        log_state_ratios: `[S]`, `log m_t`.
        steps: Length of the window, at least 1.

    Returns:
        `[S]`. With `m = 1` at each start and a window as long as the episode, it is `prefix`.

    Raises:
        ValueError: Wrong shape; a window below 1.
    """
    log_state_ratios = segments.as_float64("log_state_ratios", log_state_ratios)
    back = segments.age.clamp(max=steps - 1)
    rank = torch.arange(back.numel(), device=back.device)
    begins = torch.zeros_like(log_state_ratios).index_copy(
        0, segments.existing, log_state_ratios[segments.existing[rank - back]]
    )
    return begins + window(log_ratios, segments, steps=steps)


def _start(segments: Segments, log_weight_start: Tensor | None) -> Tensor:
    if log_weight_start is not None:
        return segments.episodes_as_float64("log_weight_start", log_weight_start)
    if segments.has_fragments:
        raise ValueError(
            "log_weight_start is needed: some episodes start after time 0, and their weight begins "
            "with that of the earlier steps. Pass it, [N], or zeros to restart at 1, which "
            "takes the behaviour's state distribution at the cut for the target's"
        )
    return torch.zeros(len(segments), dtype=torch.float64, device=segments.mask.device)
