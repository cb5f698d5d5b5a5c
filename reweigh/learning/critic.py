"""A value function of state and time: the baseline of what is learnt."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reweigh.acting.policy import Flatten, OneHot, ValueFunction
from reweigh.core.returns import reward_to_go
from reweigh.data.batch import Batch

_MOST_CLASSES = 10_000


class Critic(nn.Module):
    """`V(s, t)`, the value of what is left of an episode: `acting.policy.ValueFunction`, told time.

    Values count up to where logged episodes end, and so depend on how much of them is left.
    Observations are one-hot if they are numbers that count from 0, and standardised otherwise.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, batch: Batch, *, discount: float, hidden: Sequence[int], seed: int):
        """A value function in units of a batch's returns-to-go.

        Args:
            batch: Whole episodes, like all that it will see.
            discount: γ.
            hidden: Widths of the tanh layers.
            seed: Of its weights; the global random state is neither used nor changed.
        """
        super().__init__()
        seen = batch.observations
        self.horizon = batch.segments.most_steps
        self.classes = 0
        if seen.ndim == 1 and not seen.is_floating_point() and int(seen.min()) >= 0:
            self.classes = min(int(seen.max()) + 2, _MOST_CLASSES)
        encoded = self._encode(seen)
        size = encoded.shape[1]
        units = (encoded.new_zeros(size), encoded.new_ones(size))
        if not self.classes:
            deviation = encoded.std(0, correction=0)
            units = encoded.mean(0), torch.where(deviation > 0, deviation, 1.0)
        self.register_buffer("mean", units[0])
        self.register_buffer("deviation", units[1])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.value = ValueFunction((size + 1,), 0, hidden)
        self.value.standardise(reward_to_go(batch.rewards, batch.segments, discount=discount))

    def _encode(self, observations: Tensor) -> Tensor:
        if not self.classes:
            return Flatten()(observations)
        return OneHot(self.classes)(observations.clamp(0, self.classes - 1))

    def forward(self, batch: Batch) -> Tensor:
        """Values of all steps of a batch, `[S]` float32."""
        seen = (self._encode(batch.observations) - self.mean) / self.deviation
        time = (batch.segments.time / self.horizon).unsqueeze(1).float()
        return self.value(torch.cat([seen, time], 1))

    def loss(self, values: Tensor, targets: Tensor) -> Tensor:
        """Half the mean squared error, in units of the returns' variance."""
        return 0.5 * ((values - targets) / self.value.deviation).square().mean()
