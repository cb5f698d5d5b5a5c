"""Small problems and episodes of them, for the tests of the estimators that model something.

A `population` holds every trajectory as often as it is likely: in it, means over episodes are
expectations, and an estimator that is exact in expectation is exact.
"""

import math
from dataclasses import dataclass, replace
from functools import cache

import torch
from marginal_samples import simulate
from torch import nn
from torch.distributions import Categorical

from reweigh import recipes
from reweigh.core.segments import Segments
from reweigh.core.terms import influence, totals
from reweigh.data import Batch
from reweigh.evaluation.logged import Logged
from reweigh.evaluation.methods import with_critic


class Table(nn.Module):
    """A policy by state, from its logits."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, observations):
        return Categorical(logits=self.logits[observations.long()], validate_args=False)


def value(terms):
    return float(totals(terms).value)


def standard_error(terms):
    parts = influence(terms, totals(terms))
    return float(parts.std()) / len(parts) ** 0.5


def doubly_robust(log, **options):
    return with_critic(recipes.doubly_robust, **options)(log)


def weighted_doubly_robust(log, **options):
    return with_critic(recipes.weighted_doubly_robust, **options)(log)


def with_rewards(log, rewards):
    return Logged.of(replace(log.batch, rewards=rewards), log.policy, discount=log.sample.discount)


def without_behaviour(log):
    """The same log, of which nobody recorded the behaviour's log-probabilities."""
    missing = replace(log.batch, log_prob_behaviour=torch.full_like(log.batch.rewards, torch.nan))
    return Logged.of(missing, log.policy, discount=log.sample.discount)


def logged(
    observations,
    actions,
    rewards,
    lengths,
    policy,
    *,
    log_probs=None,
    final=None,
    terminated=None,
    version=0,
    discount=1.0,
):
    """A log from tensors, one after the other; recorded log-probs are the policy's if none."""
    n = len(lengths)
    if log_probs is None:
        log_probs = policy(observations).log_prob(actions)
    if final is None:
        final = observations[:1].expand(n, *observations.shape[1:])
    terminated = torch.ones(n).bool() if terminated is None else terminated
    batch = Batch(
        observations=observations,
        actions=actions,
        rewards=rewards.double(),
        log_prob_behaviour=log_probs.detach().double(),
        policy_version=torch.full((len(rewards),), version),
        segments=Segments.packed(lengths),
        final_observations=final,
        terminated=terminated,
        truncated=~terminated,
        episode=torch.arange(n) + 7,
    )
    return Logged.of(batch, policy, discount=discount)


def simulated(given, seed, *, episodes, horizon, discount=0.9, cut=0.0, target=None):
    """Episodes of a problem of `marginal_samples`; `cut` truncates at random."""
    x = simulate(given, seed, episodes=episodes, horizon=horizon, cut=cut)
    return logged(
        x.states,
        x.actions,
        x.rewards,
        x.segments.lengths,
        Table(given.target if target is None else target),
        log_probs=given.behaviour.log_softmax(1)[x.states, x.actions],
        final=x.final_states,
        terminated=x.terminated,
        discount=discount,
    )


def true_value(given, *, horizon, discount=0.9, cut=0.0):
    """The target's, by dynamic programming."""
    going_on = given.transition * (1 - cut)
    v = torch.zeros(len(given.start)).double()
    for _ in range(horizon):
        v = (given.target.softmax(1) * (given.reward + discount * going_on @ v)).sum(1)
    return float(given.start @ v)


@dataclass(frozen=True, eq=False)
class Population:
    """Two states, two actions, three steps; every probability is a multiple of a quarter."""

    log: Logged
    value: float
    """Of the target, by dynamic programming."""
    action_values: torch.Tensor
    """`[3, states, actions]`."""
    ratios: torch.Tensor
    """`[3, states]`, `m_t(s)`."""


CHANCES = {0: ((1, 2, 1), (2, 2, 0)), 1: ((1, 1, 2), (0, 2, 2))}
"""Quarters by state and action: to state 0, to state 1, to the end."""
REWARDS = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
BEHAVIOUR = ((1, 3), (2, 2))
TARGET = torch.tensor([[0.6, 0.4], [0.9, 0.1]], dtype=torch.float64)
DISCOUNT, HORIZON = 0.8, 3


def _trajectories(state, times, behaviour):
    """Of so many steps from a state: steps, how often in 16^times, whether it terminated."""
    for action in (0, 1):
        chosen = behaviour[state][action]
        for after, quarters in enumerate(CHANCES[state][action]):
            often = chosen * quarters
            if often and (after == 2 or times == 1):
                yield [(state, action)], often * 16 ** (times - 1), after == 2, after % 2
            elif often:
                for steps, count, terminated, final in _trajectories(after, times - 1, behaviour):
                    yield [(state, action), *steps], often * count, terminated, final


@cache
def population(behaviour=BEHAVIOUR):
    """The population of a behaviour, in quarters by state and action, as a log."""
    trajectories = [x for state in (0, 1) for x in _trajectories(state, HORIZON, behaviour)]
    common = math.gcd(*[x[1] for x in trajectories])
    repeated = [x for x in trajectories for _ in range(x[1] // common)]
    steps = torch.tensor([step for x in repeated for step in x[0]])
    chances = torch.tensor(behaviour).double() / 4
    log = logged(
        steps[:, 0],
        steps[:, 1],
        REWARDS[steps[:, 0], steps[:, 1]],
        [len(x[0]) for x in repeated],
        Table(TARGET.log()),
        log_probs=chances.log()[steps[:, 0], steps[:, 1]],
        final=torch.tensor([x[3] for x in repeated]),
        terminated=torch.tensor([x[2] for x in repeated]),
        discount=DISCOUNT,
    )
    moves = torch.tensor([CHANCES[s] for s in (0, 1)]).double()[:, :, :2] / 4
    v, q, flows = torch.zeros(2).double(), [], []
    for _ in range(HORIZON):
        q.append(REWARDS + DISCOUNT * moves @ v)
        v = (TARGET * q[-1]).sum(1)
    for policy in (TARGET, chances):
        d = [torch.full((2,), 0.5).double()]
        for _ in range(HORIZON - 1):
            d.append(d[-1] @ torch.einsum("sa,sau->su", policy, moves))
        flows.append(torch.stack(d))
    return Population(log, float(v.mean()), torch.stack(q[::-1]), flows[0] / flows[1])
