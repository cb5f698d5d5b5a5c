"""Features of states and actions, for the estimators that are linear in them."""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import one_hot

from reweigh.core.marginal import random_fourier
from reweigh.evaluation.drawing import drawer
from reweigh.evaluation.logged import Logged, action_log_probs, restricted_log_probs
from reweigh.evaluation.policies import act, choices

Features = Callable[[Tensor], Tensor]
"""From inputs `[B, n]`, float64, to features `[B, d]`, a constant the last of them."""

_FARTHEST = 10.0
_NUMBERS_AT_ONCE = 4_000_000
_STEPS_AT_ONCE = 8192
_MOST_BLOCKS = 32
_WIDEST = 600


def flat(x: Tensor) -> Tensor:
    """A row of float64 numbers for each entry, `[B, n]`."""
    return x.reshape(len(x), -1).double()


def at_once(x: Tensor) -> int:
    """How many entries to look at at once, so that their features stay small."""
    return max(min(_NUMBERS_AT_ONCE // max(x[:1].numel(), 1), _STEPS_AT_ONCE), 1)


def lifted(features: Features, x: Tensor) -> Tensor:
    """Features of all entries, computed some at a time."""
    return torch.cat([features(flat(chunk)) for chunk in x.split(at_once(x))])


def with_constant(features: Callable[[Tensor], Tensor]) -> Features:
    """The same features, and a constant as the last."""

    def extended(x: Tensor) -> Tensor:
        f = flat(features(x))
        return torch.cat([f, torch.ones_like(f[:, :1])], 1)

    return extended


class Scale(NamedTuple):
    """What standardises inputs: mean 0 and deviation 1, none farther than 10 deviations away."""

    mean: Tensor
    """`[n]`."""
    deviation: Tensor
    """`[n]`, infinite where inputs do not vary: those become 0."""

    @classmethod
    def of(cls, *inputs: Tensor) -> "Scale":
        """That of entries, `[K, *shape]` each, that lie side by side."""
        moments = []
        for x in inputs:
            first, total, square = flat(x[:1])[0], torch.zeros(()), torch.zeros(())
            for chunk in x.split(at_once(x)):
                difference = flat(chunk) - first
                total, square = total + difference.sum(0), square + difference.square().sum(0)
            moments.append((first, total / len(x), square / len(x)))
        first, mean, square = (torch.cat(x) for x in zip(*moments, strict=True))
        variance = square - mean.square()
        deviation = torch.where(variance > 1e-14 * square, variance, torch.inf).sqrt()
        return cls(first + mean, deviation)

    def __call__(self, x: Tensor) -> Tensor:
        """The inputs `[B, n]` standardised."""
        return ((x - self.mean) / self.deviation).clamp(-_FARTHEST, _FARTHEST)

    @property
    def distance(self) -> float:
        """Root mean square distance between two standardised entries; 1 if they do not differ."""
        return math.sqrt(max(2 * int(self.deviation.isfinite().sum()), 1))


def waves(scale: Scale, *, count: int, seed: int) -> Features:
    """Random Fourier features of the standardised inputs, the inputs themselves, and a constant.

    Rahimi and Recht 2007, with the root mean square distance as bandwidth: what is smooth in the
    inputs is close to the span of the features, and what is linear lies in it. More inputs than
    random features are left out themselves.

    Args:
        scale: Of the inputs.
        count: Number of random features, at least 1.
        seed: Draws them; the global random state is neither used nor changed.

    Returns:
        A function `[B, n]` to `[B, n + count + 1]`, or to `[B, count + 1]`.
    """
    width = len(scale.mean)
    generator = torch.Generator().manual_seed(seed)
    lift = random_fourier(width, count=count, bandwidth=scale.distance, generator=generator)

    def features(x: Tensor) -> Tensor:
        x = scale(x)
        return torch.cat([x, lift(x)], 1) if width <= count else lift(x)

    return features


class Regressors(Protocol):
    """How action values `Q = f(s, a)·c` are linear, with a block of coefficients for each choice.

    `d` features and as many coefficients a block. Which episode and time a step is of, `when
    [B, 2]`, decides what is drawn for it.
    """

    @property
    def blocks(self) -> int:
        """How many blocks of coefficients there are."""
        ...

    def taken(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Features `[B, d]` of the logged actions, and the block `[B]` of each."""
        ...

    def expected(self, observations: Tensor, when: Tensor) -> Tensor:
        """`E_{a~θ} f(s, a)`, `[B, blocks d]`."""
        ...

    def values(
        self, observations: Tensor, actions: Tensor, when: Tensor, c: Tensor, limits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`E_{a~θ} Q(s, a)` and `Q` of the logged action, `[B]` each.

        Coefficients are `c [B, blocks, d]`; no action value leaves its `limits [2, B, 1]`.
        """
        ...


class PerAction(NamedTuple):
    """Features of the state, and coefficients of its own for every action: exact sums over them.

    An action that was never logged is worth the mean of the target's others.
    """

    features: Features
    policy: nn.Module
    seen: Tensor
    """`[A]` bool: actions that were logged."""

    @property
    def blocks(self) -> int:
        """As `Regressors.blocks`."""
        return len(self.seen)

    def taken(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """As `Regressors.taken`."""
        return self.features(flat(observations)), actions.long()

    def expected(self, observations: Tensor, when: Tensor) -> Tensor:
        """As `Regressors.expected`."""
        del when
        f = self.features(flat(observations))
        chances = restricted_log_probs(self._log_probs(observations), self.seen).exp()
        return (chances.unsqueeze(2) * f.unsqueeze(1)).flatten(1)

    def values(
        self, observations: Tensor, actions: Tensor, when: Tensor, c: Tensor, limits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `Regressors.values`."""
        del when
        f = self.features(flat(observations)).unsqueeze(2)
        of_all = torch.bmm(c, f).squeeze(2).clamp(limits[0], limits[1])
        log_probs = self._log_probs(observations)
        mean = (restricted_log_probs(log_probs, self.seen).exp() * of_all).sum(1, keepdim=True)
        of_all = torch.where(self.seen, of_all, mean)
        taken = of_all.gather(1, actions.long().unsqueeze(1)).squeeze(1)
        return (log_probs.exp() * of_all).sum(1), taken

    def _log_probs(self, observations: Tensor) -> Tensor:
        log_probs = action_log_probs(self.policy, observations)
        assert log_probs is not None, "the policy's actions were a single choice before"
        return log_probs


class Joined(NamedTuple):
    """Features of state and action together, and a few actions that the target draws."""

    features: Features
    encode: Callable[[Tensor], Tensor]
    draw: Callable[[Tensor, Tensor], Tensor]
    """From observations and `when` to actions, `[draws, B, *action]`."""
    blocks: int = 1

    def taken(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """As `Regressors.taken`."""
        f = self.features(torch.cat([flat(observations), self.encode(actions)], 1))
        return f, torch.zeros(len(f), dtype=torch.int64)

    def expected(self, observations: Tensor, when: Tensor) -> Tensor:
        """As `Regressors.expected`, the mean over the actions drawn."""
        drawn = self.draw(observations, when)
        return torch.stack([self.taken(observations, x)[0] for x in drawn]).mean(0)

    def values(
        self, observations: Tensor, actions: Tensor, when: Tensor, c: Tensor, limits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `Regressors.values`, the mean over the actions drawn."""

        def of(chosen: Tensor) -> Tensor:
            q = (self.taken(observations, chosen)[0] * c.squeeze(1)).sum(1, keepdim=True)
            return q.clamp(limits[0], limits[1]).squeeze(1)

        drawn = [of(x) for x in self.draw(observations, when)]
        return torch.stack(drawn).mean(0), of(actions)


def regressors(
    log: Logged,
    *,
    features: Callable[[Tensor], Tensor] | None,
    count: int,
    draws: int,
    seed: int,
) -> Regressors:
    """Chooses how action values are linear by what the actions are.

    Args:
        log: The steps that default features are scaled by.
        features: Instead of `waves`: of observations, or of observations and actions where these
            are not one of at most 32 choices, flat, `[B, n]` to `[B, d]`.
        count: Number of random features, fewer if there are many actions.
        draws: Actions drawn for each state where they cannot be summed over.
        seed: Draws features and actions.
    """
    batch, policy = log.batch, log.policy
    log_probs = action_log_probs(policy, batch.observations[:1])
    blocks = _MOST_BLOCKS + 1 if log_probs is None else log_probs.shape[1]
    if blocks <= _MOST_BLOCKS:
        seen = torch.bincount(batch.actions.long(), minlength=blocks) > 0
        if features is None:
            scale, most = Scale.of(batch.observations), min(count, _WIDEST // blocks)
            return PerAction(waves(scale, count=most, seed=seed), policy, seen)
        return PerAction(with_constant(features), policy, seen)
    encode = _encoder(act(policy, batch.observations[:1]))
    draw = drawer(policy, draws=draws, numbers=batch.actions[:1].numel(), seed=seed)
    if features is None:
        scale = Scale.of(batch.observations, encode(batch.actions))
        return Joined(waves(scale, count=count, seed=seed), encode, draw)
    return Joined(with_constant(features), encode, draw)


def _encoder(distribution: Distribution) -> Callable[[Tensor], Tensor]:
    """Choices as one-hot vectors, numbers as they are."""
    known = choices(distribution)
    if known is None:
        return flat
    return lambda actions: flat(one_hot(actions.long(), known))
