"""A value function of state and time: the baseline of what is learnt, and of the test."""

from collections.abc import Iterator, Sequence
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from reweigh.acting.networks import Flatten, OneHot, network
from reweigh.core.returns import reward_to_go
from reweigh.data.batch import Batch
from reweigh.learning.division import Part

ROUNDING = 1e-12
"""The share of their size that numbers must vary by before it is more than rounding."""

_MOST_CLASSES = 10_000
_MOST_NUMBERS = 1 << 24
_RATE = 1e-2
_LEAST_UPDATES = 64
_MINIBATCH = (64, 2048)
_MOST_PASSES, _PATIENCE = 50, 3


class ValueFunction(nn.Module):
    """`V(s, t) = line(t) + unit f(s, t)`: what the behaviour gets in the rest of an episode.

    Values count up to where logged episodes end, and so depend on how much of them is left: `line`
    is the least-squares line through the returns-to-go in the discounted number of steps left, and
    f, tanh layers that begin at 0, learns what remains in units of its deviation. So f
    learns numbers around 1, whatever unit or offset the rewards have. Observations are one-hot if
    they are numbers that count from 0, and standardised otherwise.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, batch: Batch, *, discount: float, hidden: Sequence[int], seed: int):
        """A value function that knows a batch's returns-to-go by time alone.

        Args:
            batch: Whole episodes, like all that it will see.
            discount: γ.
            hidden: Widths of the tanh layers.
            seed: Of its weights; the global random state is neither used nor changed.
        """
        super().__init__()
        seen = batch.observations
        self.horizon = batch.segments.most_steps
        self.discount = discount
        self.classes = 0
        if seen.ndim == 1 and not seen.is_floating_point() and int(seen.min()) >= 0:
            self.classes = min(int(seen.max()) + 1, _MOST_CLASSES)
        mean, deviation = torch.zeros(()), torch.ones(())
        if not self.classes:
            numbers = seen.reshape(len(seen), -1).double()
            mean, deviation = numbers.mean(0), numbers.std(0, correction=0)
            deviation = torch.where(deviation > 0, deviation, 1.0)
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.size = 1 + (self.classes or mean.numel())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = network((self.size,), 0, hidden, 1, output_gain=0.0)
        self.intercept, self.slope, self.unit = 0.0, 0.0, 1.0
        left, to_go = self._left(batch), self.targets(batch)
        spread = left - left.mean()
        if float(spread.std(correction=0)) > ROUNDING * float(left.mean()):
            centred = to_go - to_go.mean()
            self.slope = float((spread * centred).sum() / spread.square().sum())
        self.intercept = float((to_go - self.slope * left).mean())
        self.unit = unit_of(to_go - self._line(batch), size=float(to_go.abs().max()))

    def targets(self, batch: Batch) -> Tensor:
        """Discounted logged rewards-to-go, `[S]` float64: the behaviour's continuation."""
        return reward_to_go(batch.rewards, batch.segments, discount=self.discount)

    def remaining(self, batch: Batch) -> Tensor:
        """What f learns, `[S]` float64: how far the targets are off the line, in units."""
        return (self.targets(batch) - self._line(batch)) / self.unit

    def at(self, batch: Batch, steps: Tensor) -> Tensor:
        """Outputs of f at some steps of a batch, `[B]` float32."""
        seen, time = batch.observations[steps], batch.segments.time[steps]
        if self.classes:
            encoded = OneHot(self.classes)(seen.clamp(0, self.classes - 1))
        else:
            # float64: what varies little around a large number would vanish in float32.
            encoded = Flatten()((seen.reshape(len(seen), -1).double() - self.mean) / self.deviation)
        share = (time / self.horizon).unsqueeze(1).float()
        return self.network(torch.cat([encoded, share], 1)).squeeze(1)

    @torch.no_grad()
    def outputs(self, batch: Batch) -> Tensor:
        """Outputs of f at all steps of a batch, `[S]` float64."""
        steps = torch.arange(len(batch)).split(max(_MOST_NUMBERS // self.size, 1))
        return torch.cat([self.at(batch, chunk) for chunk in steps]).double()

    def forward(self, batch: Batch) -> Tensor:
        """Values of all steps of a batch, `[S]` float64, constants."""
        return self._line(batch) + self.unit * self.outputs(batch)

    def _line(self, batch: Batch) -> Tensor:
        return self.intercept + self.slope * self._left(batch)

    def _left(self, batch: Batch) -> Tensor:
        """`Σ γ^k` over the steps that are left up to the horizon, `[S]` float64, at least 1."""
        sums = self.discount ** torch.arange(self.horizon, dtype=torch.float64)
        left = (self.horizon - batch.segments.time).clamp(min=1)
        return sums.cumsum(0)[left - 1]


def fitted_critic(
    training: Part, validation: Part, *, discount: float, hidden: Sequence[int], seed: int
) -> ValueFunction:
    """The value function of the behaviour, by least squares: Adam, until others fit no better.

    Args:
        training: The episodes it is fitted to.
        validation: Those by which it stops, lest it know the returns of the first by heart.
        discount: γ.
        hidden: Widths of the tanh layers.
        seed: Of its weights and minibatches.
    """
    critic = ValueFunction(next(training.batches()), discount=discount, hidden=hidden, seed=seed)
    optimiser = torch.optim.Adam(critic.parameters(), lr=_RATE)
    best, least, since = deepcopy(critic), _error(critic, validation), 0
    for number in range(_MOST_PASSES):
        for batch in training.batches():
            targets = critic.remaining(batch).float()
            for steps in _minibatches(len(batch), seed, number):
                error = critic.at(batch, steps) - targets[steps]
                optimiser.zero_grad()
                error.square().mean().backward()
                optimiser.step()
        error, since = _error(critic, validation), since + 1
        if error < least:
            best, least, since = deepcopy(critic), error, 0
        if since == _PATIENCE:
            break
    return best


def _minibatches(steps: int, *seed: int) -> Iterator[Tensor]:
    """The steps of a batch in random order, some at a time."""
    entropy = np.random.SeedSequence([*seed, steps]).generate_state(1)
    order = torch.randperm(steps, generator=torch.Generator().manual_seed(int(entropy[0])))
    return iter(order.split(int(np.clip(steps / _LEAST_UPDATES, *_MINIBATCH))))


def _error(critic: ValueFunction, part: Part) -> float:
    """Mean squared error on all steps of a part, in squared units."""
    total = count = 0.0
    for batch in part.batches():
        total += float((critic.outputs(batch) - critic.remaining(batch)).square().sum())
        count += len(batch)
    return total / count


def unit_of(numbers: Tensor, *, size: float) -> float:
    """The deviation of numbers; 1 if they are constant but for rounding.

    Args:
        numbers: What is to be measured.
        size: The largest of what they are differences of.
    """
    deviation = float(numbers.std(correction=0))
    return deviation if deviation > ROUNDING * size else 1.0
