"""Evaluation: the greedy policy's returns, on episodes that training neither meets nor counts."""

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from reweigh.acting.environments import Guarded, make
from reweigh.acting.sampling import modes_of

# Evaluation draws its reset seeds from streams of their own.
_EVALUATION = 0x5EED

LIMIT = 10_000
"""Steps after which an episode without a time limit is left: a greedy policy may never end it."""


def evaluate(
    policy: nn.Module,
    environment: str,
    *,
    episodes: int,
    seed: int,
    memory: int = 1,
    parallel: int = 25,
) -> np.ndarray:
    """Return the undiscounted returns `[episodes]` of the policy's mode, pi's most likely action.

    Episode i is reset with a seed that depends on `seed` and i alone. An episode in which the
    environment raises counts with the rewards it had until then, and so does one that is still
    going after `LIMIT` steps in an environment that has no time limit of its own.
    """
    modes = modes_of(policy)
    envs = [
        _limited(Guarded(make(environment, memory=memory))) for _ in range(min(parallel, episodes))
    ]
    returns = np.zeros(episodes)
    waiting = iter(range(episodes))
    playing = []  # (environment, episode, observation)
    try:
        for env in envs:
            episode = next(waiting)
            playing.append((env, episode, _begin(env, seed, episode)))
        while playing:
            with torch.no_grad():
                actions = modes(np.array([observation for *_, observation in playing]))
            going = []
            for (env, episode, _), action in zip(playing, actions, strict=True):
                observation, reward, terminated, truncated, _ = env.step(action)
                returns[episode] += float(reward)
                if not (terminated or truncated):
                    going.append((env, episode, observation))
                elif (following := next(waiting, None)) is not None:
                    going.append((env, following, _begin(env, seed, following)))
            playing = going
    finally:
        for env in envs:
            env.close()
    return returns


def greedy(policy: nn.Module, observations: np.ndarray) -> np.ndarray:
    """Return the mode of pi(. | s) for each observation of the batch."""
    with torch.no_grad():
        return modes_of(policy)(observations)


def _limited(env: gym.Env) -> gym.Env:
    has_limit = env.spec is not None and env.spec.max_episode_steps is not None
    return env if has_limit else gym.wrappers.TimeLimit(env, LIMIT)


def _begin(env: gym.Env, seed: int, episode: int) -> np.ndarray:
    stream = np.random.SeedSequence([_EVALUATION, seed, episode])
    observation, _ = env.reset(seed=int(stream.generate_state(1)[0]))
    return observation
