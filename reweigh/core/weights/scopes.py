"""Which ratios a step's weight multiplies.

With `ρ_t = π_θ(a_t|s_t) / π_φ(a_t|s_t)`: the step's own, those so far, those of the whole episode,
their geometric mean, those of a window, of a turn. Log-weights throughout.
"""

import torch
from torch import Tensor

from reweigh.core.scan import prefix_sum
from reweigh.core.segments import Segments


def step(log_ratios: Tensor, segments: Segments) -> Tensor:
    """The ratio of the step alone: `ρ_t`.

    Corrects the action and leaves states and rewards as the behaviour visited them: the weight of
    the TRPO, PPO and IMPALA surrogates. Its variance does not grow with the horizon.
    """
    return segments.read("log_ratios", log_ratios)


def prefix(
    log_ratios: Tensor, segments: Segments, *, log_weight_start: Tensor | None = None
) -> Tensor:
    """The product of the ratios so far, this step's included: `w_t = Π_{k≤t} ρ_k`.

    Corrects the state and the action: `E_φ[w_t f(s_0..a_t)] = E_θ[f(s_0..a_t)]` (Precup et al.
    2000, section 3). `E_φ[w_t²]` grows exponentially in `t`.

    Args:
        log_ratios: `[S]`.
        segments: Where the episodes lie.
        log_weight_start: `[N]`, the log-weight that the episode's earlier steps have earned. Needed
            if any episode is a fragment. Zeros restart the weight at 1, and so take the behaviour's
            state distribution at the cut for the target's.

    Returns:
        `[S]`. With one step an episode, it is `step`.

    Raises:
        ValueError: Another shape; fragments without `log_weight_start`.
    """
    start = _start(segments, log_weight_start)
    return prefix_sum(step(log_ratios, segments), segments) + segments.spread(start)


def trajectory(
    log_ratios: Tensor, segments: Segments, *, log_weight_start: Tensor | None = None
) -> Tensor:
    """The product of all of the episode's ratios, at each of its steps: `W = Π_{k<T} ρ_k`.

    The last `prefix` weight. Corrects whole trajectories: `E_φ[W f(τ)] = E_θ[f(τ)]`.

    Args:
        log_ratios: `[S]`; each segment reaches the end of its episode.
        segments: Where the episodes lie.
        log_weight_start: `[N]`, as in `prefix`.

    Returns:
        `[S]`, constant within an episode.

    Raises:
        ValueError: As `prefix`.
    """
    start = _start(segments, log_weight_start)
    return segments.spread(segments.total(step(log_ratios, segments)) + start)


def _start(segments: Segments, log_weight_start: Tensor | None) -> Tensor:
    if log_weight_start is not None:
        return segments.read_episodes("log_weight_start", log_weight_start)
    if segments.has_fragments:
        raise ValueError(
            "log_weight_start is needed: some episodes start after time 0, and their weight begins "
            "with what the earlier steps earned. Pass it, [N], or zeros to restart at 1, which "
            "takes the behaviour's state distribution at the cut for the target's"
        )
    return torch.zeros(len(segments), dtype=torch.float64, device=segments.mask.device)
