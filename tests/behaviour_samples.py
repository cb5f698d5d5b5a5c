"""Logs of behaviours that are known, held in memory, for the tests of reweigh.behaviour."""

from dataclasses import replace

import numpy as np

from reweigh.acting.tabular import TabularPolicy
from reweigh.data import ArraySpec, Trajectories, TrajectorySchema
from reweigh.data.episodes import InMemory
from reweigh.data.schema import MISSING

NUMBER, FLOATS = ArraySpec("int64", ()), ArraySpec("float64", (2,))


class Reread:
    """The same log, a few steps at a time whatever is asked for, or in another order."""

    def __init__(self, log, steps=7):
        self.log, self.schema, self.steps = log, log.schema, steps

    def stream_episodes(self, *, max_steps):
        del max_steps
        return self.log.stream_episodes(max_steps=self.steps)


def held(
    observations, actions, length, log_prob_behaviour=None, *, observation, action, discrete=True
):
    """Whole episodes of `length` steps each, numbered from 0; without rewards."""
    n = len(actions) // length
    t = Trajectories(
        observations=np.asarray(observations, observation.dtype),
        actions=np.asarray(actions, action.dtype),
        rewards=np.zeros(len(actions)),
        log_prob_behaviour=np.full(len(actions), np.nan)
        if log_prob_behaviour is None
        else log_prob_behaviour,
        lengths=np.full(n, length),
        final_observations=np.zeros((n, *observation.shape), observation.dtype),
        terminated=np.ones(n, bool),
        truncated=np.zeros(n, bool),
        policy_version=np.zeros(n, np.int64),
        episode=np.arange(n),
        seed=np.arange(n),
        time_start=np.zeros(n, np.int64),
    )
    schema = TrajectorySchema("Known", observation, action, discrete)
    return InMemory(t, replace(schema, behaviour=MISSING) if log_prob_behaviour is None else schema)


def draw(rng, probabilities):
    """One choice for each row of probabilities."""
    return (rng.random((len(probabilities), 1)) > probabilities.cumsum(1)).sum(1)


def tabular(probabilities, episodes, length=5, seed=0):
    """Even observations, and actions by a row of probabilities each."""
    rng = np.random.default_rng(seed)
    states, choices = probabilities.shape
    seen = rng.integers(states, size=episodes * length)
    done = draw(rng, probabilities[seen])
    spec = replace(NUMBER, choices=(states,)), replace(NUMBER, choices=(choices,))
    logs = np.log(probabilities[seen, done])
    return held(seen, done, length, logs, observation=spec[0], action=spec[1])


def table(probabilities):
    """The policy of known probabilities `[states, choices]`."""
    policy = TabularPolicy([len(probabilities)], [], [probabilities.shape[1]])
    policy.logits.data.copy_(policy.logits.new_tensor(np.log(probabilities)))
    return policy


def softmax(episodes, length=5, seed=0, *, scale=1.0, offset=0.0):
    """Actions 0, 1 and 2 by logits linear in two normal numbers, seen in another unit."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((episodes * length, 2))
    raised = np.exp(x @ np.array([[1.0, 0.0, -1.0], [0.0, 1.0, -0.5]]))
    p = raised / raised.sum(1, keepdims=True)
    done = draw(rng, p)
    action = replace(NUMBER, choices=(3,))
    logs = np.log(np.take_along_axis(p, done[:, None], 1)[:, 0])
    return held(offset + scale * x, done, length, logs, observation=FLOATS, action=action)


def gaussian(episodes, length=5, seed=0, *, unit=1.0, deviation=0.5):
    """Two numbers, means linear in what is seen; `deviation` may be a function of that."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((episodes * length, 2))
    spread = deviation(x) if callable(deviation) else np.full((len(x), 1), deviation)
    z = rng.standard_normal(x.shape)
    done = unit * (x[:, ::-1] + spread * z)
    logs = -(z**2 / 2 + np.log(unit * spread * np.sqrt(2 * np.pi))).sum(1)
    return held(x, done, length, logs, observation=FLOATS, action=FLOATS, discrete=False)
