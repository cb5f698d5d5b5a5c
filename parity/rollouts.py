"""Random rollouts as the peers take them, padded `[B, T]` float32, and as reweigh does."""

from dataclasses import dataclass

import torch
from torch import Tensor

import reweigh as rw


@dataclass
class Rollouts:
    """Ragged rows with holes in them; wherever no step is, finite numbers that mean nothing."""

    mask: Tensor
    """`[B, T]` bool."""
    target: Tensor
    """`[B, T]` log-probabilities under the policy being trained; a leaf that has a gradient."""
    old: Tensor
    """`[B, T]` under the policy that it is compared with; likewise `sampler` and `reference`."""
    sampler: Tensor
    reference: Tensor
    rewards: Tensor
    values: Tensor
    advantages: Tensor
    """`[B, T]`."""
    scores: Tensor
    """`[B]`, an advantage or reward for each row."""
    bootstrap: Tensor
    """`[B]`; 0 for every second row, which has terminated."""

    @property
    def segments(self) -> rw.Segments:
        rows, horizon = self.mask.shape
        return rw.Segments.padded([horizon] * rows, horizon, mask=self.mask.flatten())

    def flat(self, x: Tensor) -> Tensor:
        """`[B, T]`, or `[B]` for every step of a row, as `[S]`: NaN where no step is."""
        x = x.unsqueeze(1) if x.dim() == 1 else x
        return torch.where(self.mask, x, torch.nan).flatten()

    def ratios(self, denominator: Tensor | None = None) -> Tensor:
        """Log-ratios `[S]` of the target to `old`, or to another."""
        denominator = self.old if denominator is None else denominator
        return rw.log_ratios(self.flat(self.target), self.flat(denominator), self.segments)

    def sample(self, denominator: Tensor | None = None, **given) -> rw.Sample:
        """The steps, with `old` or another as the behaviour."""
        denominator = self.old if denominator is None else denominator
        return rw.Sample(self.flat(self.target), self.flat(denominator), self.segments, **given)

    def steps(self, x: Tensor) -> Tensor:
        """The existing steps of `[B, T]` or `[S]`, row after row."""
        return x.reshape(self.mask.shape)[self.mask]

    def row(self, x: Tensor, i: int) -> Tensor:
        """The existing steps of one row."""
        return x.reshape(self.mask.shape)[i, self.mask[i]]


def rollouts(seed: int, *, rows: int = 8, horizon: int = 15, spread: float = 0.4) -> Rollouts:
    """Rows of 1 to `horizon` steps, of which a sixth are holes; log-ratios of that deviation."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g)

    lengths = torch.randint(1, horizon + 1, (rows,), generator=g)
    lengths[0] = horizon
    position = torch.arange(horizon)
    mask = position < lengths.unsqueeze(1)
    mask &= (torch.rand(rows, horizon, generator=g) > 1 / 6) | (position == 0)
    target = -2 * normal(rows, horizon).abs() - 0.1
    return Rollouts(
        mask=mask,
        target=target.clone().requires_grad_(),
        old=target + spread * normal(rows, horizon),
        sampler=target + spread * normal(rows, horizon),
        reference=target + spread * normal(rows, horizon),
        rewards=normal(rows, horizon),
        values=normal(rows, horizon),
        advantages=normal(rows, horizon),
        scores=normal(rows),
        bootstrap=normal(rows) * (torch.arange(rows) % 2),
    )


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    """Of a scalar with respect to a leaf."""
    return torch.autograd.grad(loss, leaf, retain_graph=True)[0]
