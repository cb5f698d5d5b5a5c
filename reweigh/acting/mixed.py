"""A policy whose actions are choices and real numbers at once."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints


class Mixed(Distribution):
    """Rows of `k` choices, as whole numbers, and then `d` real numbers, independent of each other.

    The log-prob of a row is the log-probability of its choices plus the log-density of its numbers.
    """

    def __init__(self, choices: Distribution, numbers: Distribution):
        self.choices = choices
        self.numbers = numbers
        self.count = choices.event_shape[0]
        size = self.count + numbers.event_shape[0]
        super().__init__(choices.batch_shape, torch.Size([size]), validate_args=False)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw rows of shape `[*sample_shape, B, k + d]`."""
        shape = torch.Size(sample_shape)
        return _row(self.choices.sample(shape), self.numbers.sample(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return `[..., B]` for rows `[..., B, k + d]`."""
        choices, numbers = value[..., : self.count], value[..., self.count :]
        return self.choices.log_prob(choices) + self.numbers.log_prob(numbers)

    def entropy(self) -> Tensor:
        """Return `[B]`: the sum, since the parts are independent."""
        return self.choices.entropy() + self.numbers.entropy()

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """None: the parts have theirs."""
        return {}

    @property
    def mode(self) -> Tensor:
        """The most likely row, `[B, k + d]`."""
        return _row(self.choices.mode, self.numbers.mode)


def _row(choices: Tensor, numbers: Tensor) -> Tensor:
    return torch.cat([choices.to(numbers.dtype), numbers], -1)


class MixedPolicy(nn.Module):
    """pi(a, x | s) = pi(a | s) pi(x | s) for choices `a` and real numbers `x`, a network for each.

    Args:
        choices: A policy of `k` choices, event shape `(k,)`.
        numbers: A policy of `d` real numbers, event shape `(d,)`.
    """

    def __init__(self, choices: nn.Module, numbers: nn.Module):
        super().__init__()
        self.choices = choices
        self.numbers = numbers

    def forward(self, observations: Tensor) -> Mixed:
        """Return a distribution with batch shape `[B]` and event shape `(k + d,)`."""
        return Mixed(self.choices(observations), self.numbers(observations))
