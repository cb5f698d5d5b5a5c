"""Critics: action values of the target, fitted to logged steps.

A critic is a function of two `Logged`: it is fitted to the first, and gives values at the steps of
the second. Estimators that correct a critic ask it about episodes that it was not fitted to
(`cross_fitted`), so that its errors are independent of what corrects them.

Values are of the rewards up to the horizon, the longest episode that was fitted to, and so they
depend on the time. Dynamics and rewards are taken not to.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.marginal import Tabular, action_values_by_time
from reweigh.data.batch import steps_of
from reweigh.evaluation.features import regressors
from reweigh.evaluation.logged import (
    MOST_STEPS,
    Logged,
    action_log_probs,
    numbered_states,
    restricted_log_probs,
)
from reweigh.evaluation.regression import fit

LARGEST_TABLE = 25_000_000
"""Numbers that a table of transitions, or of values by time, may hold."""


class CriticValues(NamedTuple):
    """A critic's values at logged steps, both `[S]` float64."""

    values: Tensor
    """`V̂_t(s_t) = E_{a~θ}[Q̂_t(s_t, a)]`."""
    action_values: Tensor
    """`Q̂_t(s_t, a_t)`, of the logged action."""


Critic = Callable[[Logged, Logged], CriticValues]
"""Fitted to the first log, it gives values at the steps of the second."""


def tabular_critic(fitted: Logged, evaluated: Logged) -> CriticValues:
    """Fitted Q evaluation in a table, with the horizon: `Q_t = R + γ P Σ_a π_θ Q_{t+1}`.

    `core.marginal.action_values_by_time`: exact in the model of the logged mean rewards and
    transitions, and consistent for `Q^θ_t` of every pair that is logged and leads to logged pairs.
    A pair that was never logged is worth the mean of the target's other actions in its state, a
    state that was never fitted to the mean of all: worth nothing, they would make what a critic
    leaves to be corrected as large as the values themselves.

    Args:
        fitted: Steps that the model counts.
        evaluated: Steps that are given values.

    Returns:
        Values. Of one step to go they are the mean rewards.

    Raises:
        ValueError: Observations are not single integers, or actions not single choices; the tables
            would be too large.
    """
    segments, numbers = fitted.segments, numbered_states(fitted, evaluated)
    log_probs = action_log_probs(fitted.policy, numbers.observations)
    if log_probs is None:
        raise ValueError(
            "a table of action values needs actions that are one choice each, and this policy's "
            "are not: use linear_critic"
        )
    horizon, (count, choices) = segments.most_steps, log_probs.shape
    if not _fits(count, choices, horizon):
        raise ValueError(
            f"tables of {count} states, {choices} actions and {horizon} times exceed "
            f"{LARGEST_TABLE} numbers: use linear_critic, or put states together"
        )
    states, actions = numbers.states[0], fitted.batch.actions.long()
    visits = torch.zeros(count * choices, dtype=torch.float64)
    visits.index_add_(0, states * choices + actions, segments.inside.double())
    visits = visits.reshape(count, choices)
    known = restricted_log_probs(log_probs, visits > 0)
    by_time = action_values_by_time(
        Tabular(states, numbers.final_states[0], fitted.ended, count),
        actions,
        fitted.batch.rewards,
        known,
        segments,
        discount=fitted.sample.discount,
        horizon=horizon,
    )
    means = torch.einsum("sa,tsa->ts", known.exp(), by_time)
    share = visits.sum(1) / visits.sum()
    means = torch.where(share > 0, means, (means @ share).unsqueeze(1))
    by_time = torch.where(visits > 0, by_time, means.unsqueeze(2))
    time = evaluated.segments.time.clamp(max=horizon - 1)
    of_all = by_time[time, numbers.states[1]]
    taken = evaluated.batch.actions.long().unsqueeze(1)
    values = (log_probs.exp()[numbers.states[1]] * of_all).sum(1)
    return CriticValues(values, of_all.gather(1, taken).squeeze(1))


def linear_critic(
    *,
    features: Callable[[Tensor], Tensor] | None = None,
    count: int = 100,
    ridge: float = 1.0,
    draws: int = 8,
    most_steps: int = MOST_STEPS,
    seed: int = 0,
) -> Critic:
    """Fitted Q evaluation by linear regression, backward over the horizon.

        Q_t(s, a) = f(s, a)·c_t,   c_t regresses r + γ E_{a'~θ}[f(s', a')]·c_{t+1} on f(s, a)

    Ernst et al. 2005; Le et al. 2019 (FQE). With one matrix of moments for all times, the
    whole horizon is powers of one matrix. Features are random Fourier ones of the standardised
    observations, with those beside them, and coefficients of their own for each action; where
    actions are no single choice, they are inputs as observations are, and the target draws a few
    for its mean. Where the backward regression diverges, which it may off-policy, the ridge is
    raised until it does not. Values are bounded by what the largest logged rewards can add up to.

    Args:
        features: In place of the random ones: of flat observations, or of flat observations and
            actions where these are no single choice, `[B, n]` to `[B, d]`. A constant is added.
        count: Number of random features.
        ridge: Added to the sums of squares, in steps: as if features had been seen at so many more
            steps, with values of 0. The constant is spared.
        draws: Actions that the target draws at a state, if they cannot be summed over.
        most_steps: Steps that are fitted to, of episodes spread over the log, if there are more.
        seed: Draws features and actions; the global random state is neither used nor changed.

    Returns:
        A critic. With one-hot features of the states, no ridge, and every pair logged, it is
        `tabular_critic`.

    Raises:
        ValueError: A count, draws or steps below 1; a negative ridge.
    """
    for name, number in (("count", count), ("draws", draws), ("most_steps", most_steps)):
        contracts.require_at_least(name, number, 1)
    contracts.require_between("ridge", ridge, 0, torch.inf)

    @torch.no_grad()
    def critic(fitted: Logged, evaluated: Logged) -> CriticValues:
        fitted = fitted.thinned(most_steps)
        lift = regressors(fitted, features=features, count=count, draws=draws, seed=seed)
        return CriticValues(*fit(fitted, lift, ridge=ridge)(evaluated))

    return critic


def fitted_q(fitted: Logged, evaluated: Logged) -> CriticValues:
    """Fitted Q evaluation: `tabular_critic` where there can be a table, else `linear_critic`."""
    if fitted.has_numbered_states:
        observations = numbered_states(fitted, evaluated).observations
        log_probs = action_log_probs(fitted.policy, observations[:1])
        fits = log_probs is not None and _fits(
            len(observations), log_probs.shape[1], fitted.segments.most_steps
        )
        if fits:
            return tabular_critic(fitted, evaluated)
    return linear_critic()(fitted, evaluated)


def cross_fitted(critic: Critic, log: Logged, *, folds: int = 5) -> CriticValues:
    """Each episode's values, from the critic fitted to the episodes of the other folds.

    Chernozhukov et al. 2018, section 3 (DML2). Given the others, the critic is fixed, so that what
    corrects it is unbiased; fitted to the episode itself, it would explain its noise.

    Args:
        critic: The critic.
        log: At least 2 episodes.
        folds: Episode `i` is in fold `i mod folds`; as many as there are episodes, at most.

    Returns:
        Values of all steps. With a critic that does not read its first argument, they are its own.

    Raises:
        ValueError: A single episode; fewer than 2 folds.
    """
    contracts.require_at_least("folds", folds, 2)
    if len(log) < 2:
        raise ValueError(
            "a critic is fitted to other episodes than it is asked about, and there is only one"
        )
    fold = torch.arange(len(log)) % min(folds, len(log))
    values = torch.zeros(2, log.segments.size, dtype=torch.float64)
    for k in range(int(fold.max()) + 1):
        mine = (fold == k).nonzero().squeeze(1)
        fitted, evaluated = log.select((fold != k).nonzero().squeeze(1)), log.select(mine)
        values[:, steps_of(log.segments, mine)] = torch.stack(critic(fitted, evaluated))
    return CriticValues(values[0], values[1])


def _fits(count: int, choices: int, horizon: int) -> bool:
    return choices * count * max(count, horizon) <= LARGEST_TABLE
