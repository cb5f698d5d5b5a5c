"""Environments whose observation says which action is wanted, in spaces of every kind."""

from copy import deepcopy

import gymnasium as gym
import numpy as np
from gymnasium import spaces

STEPS = 10
"""In each episode; the reward of a step is 1 where all of the action is as wanted."""

BOX = spaces.Box(np.array([-1, 2], np.float32), np.array([1, 6], np.float32))
SPACES = {
    "MultiDiscrete": spaces.MultiDiscrete([3, 2], start=[1, -1]),
    "MultiDiscreteTable": spaces.MultiDiscrete([[2, 3], [3, 2]], start=[[0, 5], [-7, 1]]),
    "MultiBinary": spaces.MultiBinary(3),
    "MultiBinaryTable": spaces.MultiBinary([2, 2]),
    "Dict": spaces.Dict(
        {"move": spaces.Discrete(3, start=4), "flags": spaces.Tuple([spaces.MultiBinary(2)])}
    ),
    "Tuple": spaces.Tuple(
        [spaces.Discrete(2), spaces.MultiDiscrete([3, 2], dtype=np.int32, start=[1, 0])]
    ),
    "DictOfBoxes": spaces.Dict({"b": BOX, "a": spaces.Box(-2, 0, (1, 2), np.float32)}),
    "TupleOfBoxes": spaces.Tuple([BOX, spaces.Dict({"deep": spaces.Box(0, 1, (), np.float64)})]),
    "MixedDict": spaces.Dict({"gear": spaces.Discrete(3, start=1), "force": BOX}),
    "MixedTuple": spaces.Tuple(
        [BOX, spaces.MultiBinary(2), spaces.Dict({"x": BOX, "y": spaces.Discrete(2)})]
    ),
}


def likeness(space, wanted, done):
    """The mean over the parts of a space: 1 is as wanted, 0 is wrong, or as far as can be."""
    if isinstance(space, spaces.Dict):
        return np.mean([likeness(space[name], wanted[name], done[name]) for name in space])
    if isinstance(space, spaces.Tuple):
        return np.mean([likeness(*three) for three in zip(space, wanted, done, strict=True)])
    if isinstance(space, spaces.Box):
        return 1 - np.mean(np.abs(wanted - done) / (space.high - space.low))
    return np.mean(np.equal(wanted, done))


class Echo(gym.Env):
    """Shows an element of its space; the same should come back. Keeps what did."""

    def __init__(self, kind):
        self.observation_space = deepcopy(SPACES[kind])
        self.action_space = deepcopy(SPACES[kind])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        if seed is not None:
            self.observation_space.seed(seed)
        self.wanted, self.time = self.observation_space.sample(), 0
        return self.wanted, {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.action = action
        reward = likeness(self.action_space, self.wanted, action)
        self.wanted, self.time = self.observation_space.sample(), self.time + 1
        return self.wanted, float(reward), False, self.time >= STEPS, {}


for _kind in SPACES:
    gym.register(f"Echo{_kind}-v0", entry_point=Echo, kwargs={"kind": _kind})
