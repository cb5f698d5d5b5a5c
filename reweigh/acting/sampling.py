"""Drawing actions from a policy, one for each environment, step after step of one collection.

Any policy is called at every step. The built-in perceptrons are taken apart instead: a step costs
their matrix products alone, and the log-probs of all steps come from one call of the policy.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import nn

from reweigh.acting.mixed import MixedPolicy
from reweigh.acting.networks import Flatten
from reweigh.acting.policy import (
    CategoricalPolicy,
    GaussianPolicy,
    MultiCategoricalPolicy,
)
from reweigh.acting.standardised import Standardised

Layer = Callable[[np.ndarray], np.ndarray]


class Head(Protocol):
    """What makes actions of a network's outputs `[B, size]`."""

    def draw(self, outputs: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return one action for each row, `[B, *action]`.

        Raises:
            FloatingPointError: there is NaN in a row, or infinity.
        """
        ...

    def mode(self, outputs: np.ndarray) -> np.ndarray:
        """Return the most likely action for each row, `[B, *action]`."""
        ...


class Sampler(Protocol):
    """Draws the actions of one collection."""

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return an action for each of the observations `[B, *observation]`."""
        ...

    def log_probs(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return log pi(a | s) of everything drawn so far, float64, in nats.

        Args:
            observations: `[T, B, *observation]`, those of the `T` calls of `act`.
            actions: `[T, B, *action]`, what they returned.
        """
        ...


def sampler_of(policy: nn.Module, *, version: int, seed: int) -> Sampler:
    """Return what draws a policy's actions, a function of the policy and `seed` alone.

    A policy that is not built in draws from the global random state.

    Raises:
        ValueError: from `act` or `log_probs`, the policy gives NaN.
    """
    parts = _parts(policy)
    if parts is None:
        return _Called(policy, version)
    return _TakenApart(policy, version, parts, np.random.default_rng(seed))


def modes_of(policy: nn.Module) -> Layer:
    """Return a function from observations `[B, *observation]` to the most likely actions."""
    parts = _parts(policy)
    if parts is None:
        return lambda observations: policy(torch.from_numpy(observations)).mode.numpy()
    return lambda observations: _row([part.head.mode(part(observations)) for part in parts])


def _diverged(version: int) -> ValueError:
    return ValueError(
        f"policy version {version} gives NaN: it has diverged; try a smaller learning rate"
    )


class _Called:
    """Calls the policy at every step, and takes the log-probs from the same distribution."""

    def __init__(self, policy: nn.Module, version: int):
        self.policy = policy
        self.version = version
        self.drawn: list[np.ndarray] = []

    def act(self, observations: np.ndarray) -> np.ndarray:
        distribution = self.policy(torch.from_numpy(observations))
        try:
            actions = distribution.sample()
        except RuntimeError as error:  # how torch refuses to sample from NaN
            raise _diverged(self.version) from error
        log_probs = distribution.log_prob(actions).double().numpy()
        if not np.isfinite(log_probs).all():
            raise _diverged(self.version)
        self.drawn.append(log_probs)
        return actions.numpy()

    def log_probs(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        del observations, actions
        return np.stack(self.drawn)


class _TakenApart:
    """Computes the networks of a built-in policy at every step, and calls it once for log-probs.

    Both do the same arithmetic in float32, but not in the same order. So the logits that were drawn
    from and those that the log-probs are of may differ in their last bits, and log-probs by some
    1e-6: as much as when training evaluates them again in a batch of another size.
    """

    def __init__(
        self, policy: nn.Module, version: int, parts: list["_Part"], random: np.random.Generator
    ):
        self.policy = policy
        self.version = version
        self.parts = parts
        self.random = random

    def act(self, observations: np.ndarray) -> np.ndarray:
        try:
            drawn = [part.head.draw(part(observations), self.random) for part in self.parts]
        except FloatingPointError as error:
            raise _diverged(self.version) from error
        return _row(drawn)

    def log_probs(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        ticks, count = actions.shape[:2]
        flat = torch.from_numpy(observations.reshape(ticks * count, *observations.shape[2:]))
        rows = torch.from_numpy(actions.reshape(ticks * count, *actions.shape[2:]))
        log_probs = self.policy(flat).log_prob(rows).double().numpy()
        if not np.isfinite(log_probs).all():
            raise _diverged(self.version)
        return log_probs.reshape(ticks, count)


def _row(parts: list[np.ndarray]) -> np.ndarray:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")


class _Part:
    """A network of a policy, and what makes actions of its outputs."""

    def __init__(self, network: nn.Sequential, head: Head):
        self.layers = [_layer(module) for module in network]
        self.head = head

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Return the network's outputs `[B, size]`."""
        x = observations
        for layer in self.layers:
            x = layer(x)
        return x


def _layer(module: nn.Module) -> Layer:
    """Return what a module computes, in numpy where that is known: it costs a third a call."""
    if type(module) is nn.Linear and module.bias is not None:
        return _linear(module)
    if type(module) is nn.Tanh:
        return np.tanh
    if type(module) is Flatten:
        return lambda x: x.reshape(len(x), -1).astype(np.float32, copy=False)
    return lambda x: module(torch.from_numpy(x)).numpy()


def _linear(module: nn.Linear) -> Layer:
    weight, bias = module.weight.detach(), module.bias.detach()
    matrix, offset = weight.numpy().T, bias.numpy()

    def linear(x: np.ndarray) -> np.ndarray:
        # numpy's products of larger matrices take all cores; torch's take those they are given.
        if matrix.size > 2**13 or len(x) * matrix.size > 2**17:
            return torch.addmm(bias, torch.from_numpy(x), weight.t()).numpy()
        product = x @ matrix
        product += offset
        return product

    return linear


def _parts(policy: nn.Module) -> list[_Part] | None:
    """Return the networks of a built-in policy, each with its head.

    None for any other policy, and for networks that are no sequence of layers.
    """
    if (
        type(policy) is CategoricalPolicy
        and type(policy.logits) is nn.Sequential
        and isinstance(last := policy.logits[-1], nn.Linear)
    ):
        return [_Part(policy.logits, _Choices([last.out_features], single=True))]
    if type(policy) is MultiCategoricalPolicy and type(policy.logits) is nn.Sequential:
        return [_Part(policy.logits, _Choices(policy.choices))]
    if type(policy) is GaussianPolicy and type(policy.mean) is nn.Sequential:
        return [_Part(policy.mean, _Numbers(policy))]
    if type(policy) is MixedPolicy:
        parts = [_parts(policy.choices), _parts(policy.numbers)]
        return None if None in parts else [part for several in parts for part in several or ()]
    if type(policy) is Standardised:
        parts = _parts(policy.policy)
        return None if parts is None else [_standardised(part, policy) for part in parts]
    return None


def _standardised(part: _Part, policy: Standardised) -> _Part:
    mean, deviation = policy.observation_mean.numpy(), policy.observation_deviation.numpy()
    part.layers.insert(0, lambda x: ((x - mean) / deviation).astype(np.float32))
    if policy.continuous:
        part.head = _InUnits(part.head, policy)
    return part


class _Choices:
    """Choices from logits `[B, Σ choices]`: `[B, k]`, or `[B]` if there is a `single` one."""

    def __init__(self, choices: Sequence[int], *, single: bool = False):
        self.single = single
        self.there = np.arange(max(choices)) < np.reshape(choices, (-1, 1))
        self.even = bool(self.there.all())

    def draw(self, outputs: np.ndarray, random: np.random.Generator) -> np.ndarray:
        # The largest of logits with Gumbel noise is a draw from their softmax.
        noisy = self._table(outputs) + random.gumbel(size=(len(outputs), *self.there.shape))
        if not np.isfinite(noisy.max(-1)).all():
            raise FloatingPointError(f"logits: {outputs}")
        return self._best(noisy)

    def mode(self, outputs: np.ndarray) -> np.ndarray:
        return self._best(self._table(outputs))

    def _table(self, logits: np.ndarray) -> np.ndarray:
        if self.even:
            return logits.reshape(-1, *self.there.shape)
        table = np.full((len(logits), *self.there.shape), -np.inf, dtype=np.float32)
        table[:, self.there] = logits
        return table

    def _best(self, table: np.ndarray) -> np.ndarray:
        best = table.argmax(-1)
        return best[:, 0] if self.single else best


class _Numbers:
    """Real numbers around means `[B, size]`, in the policy's deviations: `[B, *action]`."""

    def __init__(self, policy: GaussianPolicy):
        self.shape = tuple(policy.spread.shape)
        self.std = (policy.widest * policy.spread.detach().sigmoid()).numpy()

    def draw(self, outputs: np.ndarray, random: np.random.Generator) -> np.ndarray:
        noise = random.standard_normal((len(outputs), *self.shape), dtype=np.float32)
        numbers = self.mode(outputs) + self.std * noise
        if not np.isfinite(numbers).all():
            raise FloatingPointError(f"means: {outputs}")
        return numbers

    def mode(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.reshape(-1, *self.shape)


class _InUnits:
    """Real numbers that a policy gives in deviations from the mean of actions."""

    def __init__(self, head: Head, policy: Standardised):
        self.head = head
        self.mean, self.deviation = policy.action_mean.numpy(), policy.action_deviation.numpy()

    def draw(self, outputs: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return self.mean + self.deviation * self.head.draw(outputs, random)

    def mode(self, outputs: np.ndarray) -> np.ndarray:
        return self.mean + self.deviation * self.head.mode(outputs)
