"""A policy that is a table, and the distribution of several choices at once."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent


def independent_choices(logits: Tensor, choices: Sequence[int]) -> Independent:
    """The distribution of actions that are several choices, made independently.

    Args:
        logits: `[B, Σ choices]`, those of the first choice first.
        choices: How many there are for each of the `k` numbers of an action.

    Returns:
        Batch shape `[B]`, event shape `(k,)`. The log-probability of an action is the sum over its
        numbers; a number for which there is no such choice has `-inf`.
    """
    most = max(choices)
    padded = [
        nn.functional.pad(part, (0, most - part.shape[-1]), value=-torch.inf)
        for part in logits.split(list(choices), -1)
    ]
    # Padding is constant, and probabilities of 0 have no gradient: nothing is inf - inf or 0 * inf.
    return Independent(
        Categorical(logits=torch.stack(padded, -2), validate_args=False), 1, validate_args=False
    )


class TabularPolicy(nn.Module):
    """pi(a | s) = softmax(logits[s])_a: a row of numbers for each observation, float64.

    An observation of several numbers, each with its own number of choices, is one row for each
    combination. Actions of shape `()` are one choice, those of shape `(k,)` are independent ones.
    """

    def __init__(
        self,
        observation_choices: Sequence[int],
        action_shape: Sequence[int],
        choices: Sequence[int],
    ):
        super().__init__()
        self.observation_choices = list(observation_choices)
        self.choices = list(choices)
        self.single = len(action_shape) == 0
        states = math.prod(observation_choices)
        self.logits = nn.Parameter(torch.zeros(states, sum(choices), dtype=torch.float64))

    def forward(self, observations: Tensor) -> Categorical | Independent:
        """Return a distribution with batch shape `[B]`.

        Raises:
            ValueError: an observation for which there is no row.
        """
        rows = self.logits[self.row(observations)]
        if self.single:
            return Categorical(logits=rows, validate_args=False)
        return independent_choices(rows, self.choices)

    def row(self, observations: Tensor) -> Tensor:
        """Return which row of the table each observation has, `[B]` int64.

        Raises:
            ValueError: it has none.
        """
        numbers = observations.reshape(len(observations), -1).long()
        counts = torch.tensor(self.observation_choices, device=numbers.device)
        outside = ((numbers < 0) | (numbers >= counts)).any(1)
        if bool(outside.any()):
            first = int(outside.nonzero()[0])
            raise ValueError(
                f"observation {observations[first].tolist()} is not in the policy's table, which "
                f"counts from 0 and has {self.observation_choices} of them"
            )
        strides = counts.flip(0).cumprod(0).flip(0) // counts
        return (numbers * strides).sum(1)
