"""The behaviour by maximum likelihood: networks fitted to a log that is streamed."""

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from reweigh.acting.policy import build, policy_of
from reweigh.acting.standardised import Standardised
from reweigh.behaviour.fitted import Fitted, Material

LEARNING_RATES = (1e-3, 1e-4)
_HELD_OUT_SHARE = 0.1
_MOST_HELD_OUT = 200_000
_LEAST_UPDATES = 64
_MINIBATCH = (64, 2048)


class _Steps(NamedTuple):
    observations: Tensor
    actions: Tensor
    fold: Tensor

    def where(self, chosen: Tensor) -> "_Steps":
        return _Steps(*(x[chosen] for x in self))

    def __len__(self) -> int:
        return len(self.fold)


def fit_network(
    material: Material,
    *,
    hidden: Sequence[int] = (64, 64),
    learning_rates: Sequence[float] = LEARNING_RATES,
    patience: int = 5,
    most_passes: int = 200,
    most_steps: int = 5_000_000,
) -> Fitted:
    """The policy network that makes the logged actions most likely: `max Σ log π̂(a_t|s_t)`.

    Adam (Kingma and Ba 2015) on minibatches, until the likelihood of a tenth of the episodes that
    is held out has not risen for some passes; then from the best so far with the next, smaller
    learning rate. Each pass over the log serves all networks, and memory holds a part of it.
    Observations, and real-numbered actions, are standardised by the log's moments.

    Args:
        material: A log.
        hidden: Widths of the tanh layers.
        learning_rates: The learning rates, one after the other.
        patience: Number of passes without a better likelihood that ends a learning rate.
        most_passes: The most passes with each learning rate.
        most_steps: About how many steps to learn from: of a longer log, a share of the episodes.

    Returns:
        Policies of kind "categorical", "multi_categorical" or "gaussian", standardised. The same
        log, seed and number of threads give the same bits.

    Raises:
        ValueError: Too few episodes to hold some out of each network's.
    """
    description = policy_of(material.schema, hidden, standardise=True)
    held_out, keep = _division(material, most_steps)
    minibatch = int(np.clip(material.survey.steps * keep / _LEAST_UPDATES, *_MINIBATCH))
    fits = [
        _Fit(material, description, k, learning_rates, patience, most_passes, minibatch)
        for k in range(material.folds.count + 1)
    ]
    held = list(_stream(material, 0.0, held_out))
    judging = _Steps(*(torch.cat(parts) for parts in zip(*held, strict=True)))
    while going := [fit for fit in fits if fit.rates]:
        for steps in _stream(material, held_out, held_out + keep * (1 - held_out)):
            for fit in going:
                fit.learn(steps.where(steps.fold != fit.without))
        for fit in going:
            fit.judge(judging.where(judging.fold != fit.without))
    layers = " x ".join(map(str, hidden)) or "no hidden layers"
    return Fitted(tuple(fit.policy for fit in fits), description, f"a network of {layers}")


class _Fit:
    """A network whose likelihood is being maximised."""

    def __init__(
        self,
        material: Material,
        description: str,
        without: int,
        rates: Sequence[float],
        patience: int,
        most_passes: int,
        minibatch: int,
    ):
        self.without = without
        self.rates = list(rates)
        self.patience, self.most_passes, self.minibatch = patience, most_passes, minibatch
        seed = material.folds.seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.policy = build(description)
        _measure(self.policy, material, without)
        self.generator = torch.Generator().manual_seed(seed)
        self.best_score, self.best = -torch.inf, copy.deepcopy(self.policy.state_dict())
        self._start()

    def _start(self) -> None:
        """Begins with the next learning rate at the best parameters so far."""
        self.policy.load_state_dict(self.best)
        if self.rates:
            parameters = self.policy.parameters()
            self.optimiser = torch.optim.Adam(parameters, lr=self.rates[0], fused=True)
        self.passes = self.since_best = 0

    def learn(self, steps: _Steps) -> None:
        """Learns once from each step, in random order."""
        order = torch.randperm(len(steps), generator=self.generator)
        for index in order.split(self.minibatch):
            chosen = steps.where(index)
            loss = -self.policy(chosen.observations).log_prob(chosen.actions).mean()
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()

    @torch.no_grad()
    def judge(self, held_out: _Steps) -> None:
        """Ends a pass: keeps the parameters if they are the best, or goes to the next rate."""
        total = 0.0
        for index in torch.arange(len(held_out)).split(8192):
            part = held_out.where(index)
            total += float(self.policy(part.observations).log_prob(part.actions).double().sum())
        score = total / len(held_out)
        if not np.isfinite(score):
            raise ValueError(
                f"after pass {self.passes + 1} a network gives held-out actions a log-likelihood "
                f"of {score}: look for observations or actions far from all others"
            )
        self.passes += 1
        self.since_best += 1
        if score > self.best_score:
            self.best_score, self.best = score, copy.deepcopy(self.policy.state_dict())
            self.since_best = 0
        if self.since_best == self.patience or self.passes == self.most_passes:
            self.rates.pop(0)
            self._start()


def _measure(policy: nn.Module, material: Material, without: int) -> None:
    """Standardises a policy by the moments of the folds that it may see."""
    assert isinstance(policy, Standardised), "`policy_of(standardise=True)` describes one"
    schema, survey = material.schema, material.survey
    moments = {}
    if not (schema.observation.choices and schema.observation.shape == ()):
        moments["observation"] = survey.observations(without=without), schema.observation
    if not schema.discrete_actions:
        moments["action"] = survey.actions(without=without), schema.action
    for name, (moment, spec) in moments.items():
        mean, deviation = (
            torch.from_numpy(x.reshape(spec.shape)) for x in (moment.mean, moment.deviation)
        )
        policy.measure(name, mean, deviation)


def _division(material: Material, most_steps: int) -> tuple[float, float]:
    """The draw below which an episode is held out, and the share of the others to learn from.

    Raises:
        ValueError: A network would have no episodes held out, or none to learn from.
    """
    survey, folds = material.survey, material.folds
    share = min(_HELD_OUT_SHARE, _MOST_HELD_OUT / survey.steps)
    draws, fold = folds.draw(survey.episodes), folds.of(survey.episodes)
    order = draws.argsort()
    draws, fold = draws[order], fold[order]
    # The least number that makes the share, of two folds at least, so that each network has some.
    second = int((fold != fold[0]).argmax())
    number = max(int(np.ceil(share * len(draws))), second + 1)
    rest = fold[number:]
    if len(np.unique(rest)) < 2:
        raise ValueError(
            f"the log has {len(draws)} episodes, too few for networks that each leave out one of "
            f"{folds.count} folds and hold some out of the others: log more, or take fewer folds"
        )
    held_out = float(draws[number - 1] + draws[number]) / 2
    return held_out, min(1.0, most_steps / survey.steps)


def _stream(material: Material, low: float, high: float) -> Iterator[_Steps]:
    """The steps of the episodes whose draw lies in `[low, high)`, in pieces."""
    for t in material.stream():
        draw = material.folds.draw(t.episode)
        chosen = t.select((low <= draw) & (draw < high))
        if chosen.steps:
            yield _Steps(
                torch.from_numpy(chosen.observations),
                torch.from_numpy(chosen.actions),
                torch.from_numpy(material.folds.of_steps(chosen)),
            )
