"""Log-ratios of the target policy to the behaviour policy: where every importance weight begins."""

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.segments import Segments


def log_ratios(log_prob_target: Tensor, log_prob_behaviour: Tensor, segments: Segments) -> Tensor:
    """Per-step log-ratio `log ρ_t = log π_θ(a_t|s_t) - log π_φ(a_t|s_t)`, in nats.

    Differentiable in `log_prob_target`; the behaviour is a constant. On the CPU the values are
    checked; on an accelerator the check would stall it, and a NaN reaches the loss instead.

    Args:
        log_prob_target: `[S]` float32 or float64, under the policy being trained. `-inf` (an action
            it never takes) is legal: the weight is 0.
        log_prob_behaviour: `[S]` float32 or float64, under the policy that sampled the actions.

    Returns:
        `[S]` float64, 0 where no step exists. Equal arguments give 0.

    Raises:
        ValueError: Wrong shape; half precision; a NaN, `+inf`, or `-inf` under the behaviour.
    """
    target = checked_log_prob("log_prob_target", log_prob_target, segments)
    return target - checked_behaviour(log_prob_behaviour, segments)


def checked_behaviour(log_prob_behaviour: Tensor, segments: Segments) -> Tensor:
    """The behaviour's log-probability `[S]` as float64, a constant.

    Raises:
        ValueError: Wrong shape; half precision; on the CPU, a value that is not finite.
    """
    behaviour = checked_log_prob("log_prob_behaviour", log_prob_behaviour, segments).detach()
    refuse("log_prob_behaviour", behaviour, behaviour == -torch.inf, segments)
    return behaviour


def checked_log_prob(name: str, log_prob: Tensor, segments: Segments) -> Tensor:
    """A log-probability `[S]` as float64, `-inf` allowed.

    Raises:
        ValueError: Wrong shape; half precision; on the CPU, a NaN or `+inf`.
    """
    contracts.require_full_precision(name, log_prob)
    log_prob = segments.as_float64(name, log_prob)
    refuse(name, log_prob, ~(log_prob < torch.inf), segments)
    return log_prob


def refuse(name: str, log_prob: Tensor, bad: Tensor, segments: Segments) -> None:
    """Refuses steps on the CPU; on an accelerator, where looking stalls it, nothing happens.

    Raises:
        ValueError: Any of the steps `[S]` is bad; says which is the first.
    """
    if not contracts.can_look_at(log_prob) or not bool(bad.any()):
        return
    first = int(bad.nonzero()[0])
    episode = int(segments.episode[first])
    step = int(segments.time[first] - segments.time_start[episode])
    raise ValueError(
        f"{name} is {float(log_prob.detach()[first])} at step {step} of episode {episode} "
        f"({int(bad.sum())} such steps): an action that was taken has a finite log-probability; "
        "mask the step, or compute its log-probability again"
    )
