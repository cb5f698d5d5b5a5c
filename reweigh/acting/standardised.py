"""A policy that measures what it sees, and what it does, in units of a log's means and deviations.

Logs come in any unit, and a network learns from numbers around 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal


class Standardised(nn.Module):
    """pi(a | s) of a policy that is given `(s - mean) / deviation`.

    If its actions are real numbers, they are standardised too: the policy's distribution is that of
    `(a - mean) / deviation`, and this one's that of `a`, its density included. Means and deviations
    are part of the state dict; until `measure` is called they are 0 and 1.
    """

    observation_mean: Tensor
    observation_deviation: Tensor
    action_mean: Tensor
    action_deviation: Tensor

    def __init__(
        self,
        policy: nn.Module,
        observation_shape: Sequence[int],
        action_shape: Sequence[int] | None,
    ):
        super().__init__()
        self.policy = policy
        self.continuous = action_shape is not None
        shapes = {"observation": observation_shape, "action": action_shape or ()}
        for name, shape in shapes.items():
            # float64: what varies little around a large number would vanish in float32.
            self.register_buffer(f"{name}_mean", torch.zeros(tuple(shape), dtype=torch.float64))
            self.register_buffer(f"{name}_deviation", torch.ones(tuple(shape), dtype=torch.float64))

    def forward(self, observations: Tensor) -> Distribution:
        """Return the distribution of actions in their own units, batch shape `[B]`."""
        seen = (observations.double() - self.observation_mean) / self.observation_deviation
        distribution = self.policy(seen.float())
        if not self.continuous:
            return distribution
        inner = distribution.base_dist
        normal = Normal(
            self.action_mean + self.action_deviation * inner.loc,
            self.action_deviation * inner.scale,
            validate_args=False,
        )
        return Independent(normal, self.action_mean.ndim, validate_args=False)

    @torch.no_grad()
    def measure(self, name: str, mean: Tensor, deviation: Tensor) -> None:
        """Take the mean and deviation of `name`, "observation" or "action".

        What does not vary keeps its unit.
        """
        getattr(self, f"{name}_mean").copy_(mean)
        getattr(self, f"{name}_deviation").copy_(torch.where(deviation > 0, deviation, 1.0))
