"""Fitted Q evaluation with values that are linear in features: a regression for each time.

All of them regress on the same features of the same steps. The sums that they are computed from are
taken once, some steps at a time, and the horizon is powers of one matrix.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from reweigh.core.marginal.chains import powers
from reweigh.evaluation.features import Regressors, at_once
from reweigh.evaluation.logged import Logged

_SINGULAR = 1e-12
_HARDER = 10.0
_ATTEMPTS = 20


@dataclass(frozen=True, eq=False)
class LinearValues:
    """Fitted action values: a function of logged steps."""

    lift: Regressors
    """Features of states and actions."""
    coefficients: Tensor
    """`[H, blocks, d]`, for 1, 2, ... steps to go."""
    attainable: Tensor
    """`[2, H]`: the least and the most that so many rewards can add up to."""
    ridge: float
    """What it took for the regressions not to diverge."""

    def __call__(self, log: Logged) -> tuple[Tensor, Tensor]:
        """`E_{a~θ} Q̂_t(s_t, a)` and `Q̂_t(s_t, a_t)`, `[S]` each; none beyond the attainable."""
        batch, segments = log.batch, log.segments
        values = torch.zeros(2, segments.size, dtype=torch.float64)
        for chunk in _chunks(log):
            time = segments.time[chunk]
            left = (len(self.coefficients) - 1 - time).clamp(min=0)
            values[0, chunk], values[1, chunk] = self.lift.values(
                batch.observations[chunk],
                batch.actions[chunk],
                torch.stack([batch.episode[segments.episode[chunk]], time], 1),
                self.coefficients[left],
                self.attainable[:, left].unsqueeze(2),
            )
        return values[0], values[1]


@torch.no_grad()
def fit(log: Logged, lift: Regressors, *, ridge: float) -> LinearValues:
    """Fits the target's action values, backward from the horizon, the longest episode.

    Args:
        log: The steps.
        lift: Features of states and actions.
        ridge: Added to the sums of squares, in steps; raised until no backward step diverges.
    """
    moments, attainable = _moments(log, lift), _attainable(log)
    steps = moments.gram[:, -1, -1].sum()
    limits = (1 + 1e-6) * attainable.abs().amax(0).square()
    coefficients = torch.zeros(())
    for _ in range(_ATTEMPTS):
        coefficients = _backward(moments, ridge, log.sample.discount, len(limits))
        squares = torch.einsum("tbd,bde,tbe->t", coefficients, moments.gram, coefficients)
        if bool((squares <= limits * steps).all()):
            break
        ridge = max(_HARDER * ridge, 1.0)
    return LinearValues(lift, coefficients, attainable, ridge)


class _Moments(NamedTuple):
    """Sums over steps, from which all regressions are computed."""

    gram: Tensor
    """`[blocks, d, d]`: `Σ f fᵀ`, f of state and action."""
    crossed: Tensor
    """`[blocks, d, 1 + blocks d]`: `Σ f (r, E_{a'~θ} f(s', a'))ᵀ`."""


def _moments(log: Logged, lift: Regressors) -> _Moments:
    batch, segments = log.batch, log.segments
    final = torch.arange(segments.size, segments.size + len(segments))
    following = segments.next(torch.arange(segments.size), final)
    is_end = log.ended[segments.episode] & segments.is_last
    moments = None
    for chunk in _chunks(log):
        f, block = lift.taken(batch.observations[chunk], batch.actions[chunk])
        after, episode = following[chunk], (following[chunk] - segments.size).clamp(min=0)
        over = is_end[chunk]
        ahead = batch.observations[after.clamp(max=segments.size - 1)]
        ahead[after >= segments.size] = batch.final_observations[episode[after >= segments.size]]
        ahead[over] = batch.observations[:1]  # the observation after an end is not read
        when = torch.stack([batch.episode[segments.episode[chunk]], segments.time[chunk] + 1], 1)
        expected = lift.expected(ahead, when)
        expected[over] = 0.0
        targets = torch.cat([batch.rewards[chunk].double().unsqueeze(1), expected], 1)
        mine = [(block == number).nonzero().squeeze(1) for number in range(lift.blocks)]
        gram = torch.stack([f[own].mT @ f[own] for own in mine])
        crossed = torch.stack([f[own].mT @ targets[own] for own in mine])
        if moments is not None:
            gram, crossed = gram + moments.gram, crossed + moments.crossed
        moments = _Moments(gram, crossed)
    assert moments is not None, "an episode has a step"
    return moments


def _backward(moments: _Moments, ridge: float, discount: float, horizon: int) -> Tensor:
    """Coefficients for 1, 2, ... steps to go, `[H, blocks, d]`."""
    gram, crossed = moments
    blocks, width, _ = gram.shape
    size = blocks * width
    squares = gram.diagonal(dim1=1, dim2=2) / gram[:, -1:, -1].clamp(min=1.0)
    penalty = (ridge * squares.mean(1, keepdim=True)).expand(-1, width).clone()
    penalty[:, -1] = 0.0
    inverse = torch.linalg.pinv(gram + torch.diag_embed(penalty), rtol=_SINGULAR, hermitian=True)
    solved = inverse @ crossed
    # (c, 1) of one more step to go is a fixed matrix times it: its powers are all horizons.
    backup = solved.new_zeros(size + 1, size + 1)
    backup[:size, :size] = discount * solved[:, :, 1:].reshape(size, size)
    backup[:size, size] = solved[:, :, 0].reshape(size)
    backup[size, size] = 1.0
    nothing = torch.eye(size + 1).to(backup)[size]
    return powers(nothing, backup.mT, horizon + 1)[1:, :size].reshape(horizon, blocks, width)


def _attainable(log: Logged) -> Tensor:
    """The least and the most that 1, 2, ... rewards can add up to, `[2, H]`."""
    horizon, rewards = log.segments.most_steps, log.batch.rewards
    worth = (log.sample.discount ** torch.arange(horizon, dtype=torch.float64)).cumsum(0)
    return torch.stack([rewards.min().clamp(max=0) * worth, rewards.max().clamp(min=0) * worth])


def _chunks(log: Logged) -> Iterable[Tensor]:
    """The steps, some at a time."""
    return log.segments.existing.split(at_once(log.batch.observations))
