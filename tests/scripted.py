"""Environments that count: every observation says which episode and step it is."""

import signal

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv


class Counting(gym.Env):
    """Observation (seed, time, actions so far); episodes end after 1 + seed % 5 steps.

    Odd seeds terminate, even ones are truncated. The reward of the step from time t is t + 1.
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.seeded, self.time, self.taken = seed, 0, 0
        return self._observation(), {}

    def step(self, action):
        self.time += 1
        self.taken += int(action)
        ended = self.time >= 1 + self.seeded % 5
        odd = self.seeded % 2 == 1
        return self._observation(), float(self.time), ended and odd, ended and not odd, {}

    def _observation(self):
        return np.array([self.seeded, self.time, self.taken], dtype=np.float64)


class Raising(Counting):
    """Raises at the third step of every episode whose seed is divisible by 3."""

    def step(self, action):
        if self.time == 2 and self.seeded % 3 == 0:
            raise RuntimeError("the arm fell\noff")
        return super().step(action)


class AlwaysRaising(Counting):
    def step(self, action):
        raise OSError("cable unplugged")


class InfiniteReward(Counting):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, float("inf"), *rest


class Bounded(gym.Env):
    """Keeps the last action; its bounds are 1 to 3 and -4 to 0."""

    observation_space = gym.spaces.Box(-1, 1, (2, 2), np.float32)
    action_space = gym.spaces.Box(
        np.array([1, -4], np.float32), np.array([3, 0], np.float32), dtype=np.float32
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        return np.zeros((2, 2), np.float32), {}

    def step(self, action):
        self.last = np.array(action)
        return np.zeros((2, 2), np.float32), 0.0, False, False, {}


class SequenceObservations(Bounded):
    observation_space = gym.spaces.Tuple([gym.spaces.Sequence(gym.spaces.Discrete(2))])


class WholeNumberActions(Bounded):
    action_space = gym.spaces.Dict({"count": gym.spaces.Box(0, 9, (2,), np.int64)})


class NoActions(Bounded):
    action_space = gym.spaces.Tuple([])


class FromOne(Counting):
    """Actions 1, 2, 3; the reward is the action."""

    action_space = gym.spaces.Discrete(3, start=1)
    observation_space = gym.spaces.Discrete(7, start=-2)

    def step(self, action):
        _, _, *rest = super().step(action)
        return self.time - 2, float(action), *rest

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        return -2, {}


class Unrepeatable(gym.Env):
    """Never ends, and counts its resets over all instances: no seed brings an observation back."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    resets = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        Unrepeatable.resets += 1
        return np.array([Unrepeatable.resets], np.float32), {}

    def step(self, action):
        return np.array([Unrepeatable.resets], np.float32), 1.0, False, False, {}


class OddBounds(Bounded):
    """Bounds that rounding crosses easily, of no width in one dimension."""

    action_space = gym.spaces.Box(
        np.array([-1e6, 2], np.float32), np.array([5, 2], np.float32), dtype=np.float32
    )


class Overwriting(gym.Env):
    """Counts the time in one array that it hands out every time; truncated after 10 steps."""

    observation_space = gym.spaces.Box(-1, 99, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self):
        self.buffer = np.zeros(1, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.buffer[0] = 0
        return self.buffer, {}

    def step(self, action):
        self.buffer[0] += 1
        return self.buffer, 0.0, False, self.buffer[0] >= 10, {"raised": True}


class Scalar(gym.Env):
    """One number to see and one to do, both without a shape; the fourth observation is NaN."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (), np.float64)
    action_space = gym.spaces.Box(-1, 1, (), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.time = 0
        return np.array(0.0), {}

    def step(self, action):
        assert action.shape == ()
        self.time += 1
        return np.array(np.nan if self.time == 3 else 0.0), 0.0, False, False, {}


class Unmade(Bounded):
    def __init__(self):
        raise KeyError("no such device")


class Unready(Bounded):
    def reset(self, *, seed=None, options=None):
        return 1 / 0


class Interrupting(CartPoleEnv):
    """CartPole in which the user presses Ctrl-C once, after `steps_left` steps of this process."""

    steps_left = 0

    def step(self, action):
        Interrupting.steps_left -= 1
        if Interrupting.steps_left == -1:
            signal.raise_signal(signal.SIGINT)
        return super().step(action)


for _class in (
    Counting,
    Raising,
    AlwaysRaising,
    InfiniteReward,
    Bounded,
    SequenceObservations,
    WholeNumberActions,
    NoActions,
    FromOne,
    Unrepeatable,
    OddBounds,
    Overwriting,
    Scalar,
    Unmade,
    Unready,
    Interrupting,
):
    gym.register(f"{_class.__name__}-v0", entry_point=_class, max_episode_steps=None)
