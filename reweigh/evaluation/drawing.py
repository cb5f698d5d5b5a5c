"""Actions that the target draws where they cannot be summed over: the same for a step each time.

An estimate that is made again without some of the episodes must differ by their absence alone. So
what is drawn at a step follows from its episode's number and its time, not from its place.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent

from reweigh.evaluation.policies import act

_MARGIN = 1e-12


def drawer(
    policy: nn.Module, *, draws: int, numbers: int, seed: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """A function that draws actions at states, by quantiles of the target's distribution.

    Uniform numbers are a lattice rule, shifted at random at each step (Cranley and Patterson 1976):
    unbiased for the mean over actions, of less variance than independent draws. A distribution
    without quantiles is sampled instead, by the seed alone.

    Args:
        policy: The target.
        draws: How many actions a state.
        numbers: How many numbers an action has.
        seed: Decides the shifts; the global random state is neither used nor changed.

    Returns:
        A function of observations `[B, *observation]` and of each step's episode and time, `[B, 2]`
        int64, to actions `[draws, B, *action]`.
    """
    generator = torch.Generator().manual_seed(seed)
    turns = torch.rand(3, numbers, generator=generator, dtype=torch.float64)
    which = torch.arange(draws, dtype=torch.float64)
    lattice = which.unsqueeze(1) * (2 * torch.arange(numbers) + 1) / draws

    def draw(observations: Tensor, when: Tensor) -> Tensor:
        shift = when.double() @ turns[:2] + turns[2]
        uniform = (lattice.unsqueeze(1) + shift).frac().clamp(_MARGIN, 1 - _MARGIN)
        distribution = act(policy, observations)
        uniform = uniform.reshape(draws, len(when), *distribution.event_shape)
        try:
            return _quantiles(distribution, uniform)
        except NotImplementedError:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return distribution.sample((draws,))

    return draw


def _quantiles(distribution: Distribution, uniform: Tensor) -> Tensor:
    if isinstance(distribution, Independent):
        return _quantiles(distribution.base_dist, uniform)
    if isinstance(distribution, Categorical):
        mass = distribution.probs.double().cumsum(-1)
        return (mass / mass[..., -1:] < uniform.unsqueeze(-1)).sum(-1)
    return distribution.icdf(uniform)
