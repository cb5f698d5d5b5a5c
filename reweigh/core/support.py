"""Actions that could have been sampled: top-k, top-p and temperature in the ratio.

A sampler that cuts a distribution down (the k likeliest actions, the likeliest that hold a mass p)
and records log-probabilities within the cut samples from another policy than the network's. The
ratio is exact if the target is cut down to the *same* support, the behaviour's: then
`E_φS[ρ f] = E_θS[f]`, with `θS` the target restricted to the support. A target that is not cut down
makes every ratio too small, by the mass that it gives to the support.
"""

import torch
from torch import Tensor

from reweigh import contracts


def top_k(logits: Tensor, *, k: int) -> Tensor:
    """The `k` likeliest actions of each step (Fan et al. 2018), and ties with the last of them.

    Args:
        logits: `[S, A]`, of the policy that sampled.
        k: At least 1; `A` and more keep every action.

    Returns:
        `[S, A]` bool.

    Raises:
        ValueError: `k` below 1.
    """
    contracts.require_at_least("k", k, 1)
    least = logits.topk(min(k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits >= least


def top_p(logits: Tensor, *, p: float, temperature: float = 1.0) -> Tensor:
    """The fewest likeliest actions that hold a mass of `p` or more (nucleus; Holtzman et al. 2020).

    Args:
        logits: `[S, A]`, of the policy that sampled; `-inf` for actions removed earlier.
        p: In (0, 1]; the action that crosses it is kept.
        temperature: Divisor of the logits, above 0.

    Returns:
        `[S, A]` bool; at least one action of each step.

    Raises:
        ValueError: `p` outside (0, 1]; a temperature that is not positive.
    """
    contracts.require_positive("p", p)
    contracts.require_between("p", p, 0, 1)
    contracts.require_positive("temperature", temperature)
    ordered, order = (logits.double() / temperature).sort(dim=-1, descending=True, stable=True)
    mass = ordered.softmax(-1)
    # The mass of the likelier actions alone: p is not yet reached before a kept action.
    kept = (mass.cumsum(-1) - mass < p) & (mass > 0)
    kept[..., 0] = True
    return torch.zeros_like(kept).scatter(-1, order, kept)


def log_probs(logits: Tensor, *, support: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """Log-probabilities of all actions within a support: `log softmax(logits / temperature)` on it.

    Args:
        logits: `[S, A]`; half precision is taken up to float32 first.
        support: `[S, A]` bool, the *behaviour's*, for behaviour and target alike; every action
            without it.
        temperature: That of the sampler, above 0.

    Returns:
        `[S, A]` float32 or float64, `-inf` outside the support, differentiable in the logits. The
        exponentials sum to 1.

    Raises:
        ValueError: Wrong shape of the support; a temperature that is not positive.
    """
    contracts.require_positive("temperature", temperature)
    scaled = (logits if logits.dtype == torch.float64 else logits.float()) / temperature
    if support is not None:
        if support.shape != logits.shape:
            raise ValueError(
                f"support must have the shape of the logits {list(logits.shape)}, got "
                f"{list(support.shape)}"
            )
        scaled = scaled.masked_fill(~support, -torch.inf)
    return scaled.log_softmax(-1)


def log_prob(
    logits: Tensor, actions: Tensor, *, support: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Log-probability of the actions taken, within a support: an argument of `log_ratios`.

    Args:
        logits: `[S, A]`.
        actions: `[S]` int64; a negative one, as padding has, gives 0.
        support: `[S, A]` bool, the behaviour's.
        temperature: That of the sampler, above 0.

    Returns:
        `[S]`. With every action supported and a temperature of 1, the usual log-probability.

    Raises:
        ValueError: As `log_probs`.
    """
    every = log_probs(logits, support=support, temperature=temperature)
    taken = every.gather(-1, actions.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return torch.where(actions < 0, 0.0, taken)


def log_mass(logits: Tensor, support: Tensor, *, temperature: float = 1.0) -> Tensor:
    """The mass of a policy within a support: `log Σ_{a∈support} π(a|s)`.

    The error of a log-ratio whose target was not cut down. Far below 0 for a target that takes
    other actions than the behaviour could, where no weight helps.

    Args:
        logits: `[S, A]`.
        support: `[S, A]` bool.
        temperature: That of the sampler, above 0.

    Returns:
        `[S]`, at most 0. Plus `log_prob` within the support, it is `log_prob` without.

    Raises:
        ValueError: A temperature that is not positive.
    """
    every = log_probs(logits, temperature=temperature)
    return every.masked_fill(~support, -torch.inf).logsumexp(-1)
