"""Gymnasium environments as the rest of the package meets them: flat, guarded, seeded."""

import json
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from reweigh.acting.policy import policy_of
from reweigh.acting.spaces import MixedRow, with_flat_spaces
from reweigh.acting.vector import ArrayVectorEnv
from reweigh.contracts import one_line
from reweigh.data.schema import ArraySpec, TrajectorySchema

RAISED = "reweigh.raised"
"""Key of the info in which an episode that the environment broke says how."""


def make(environment: str, *, memory: int = 1) -> gym.Env:
    """Make an environment by its Gymnasium id (`module:id` imports the module first).

    Observations and actions are flat (`spaces.with_flat_spaces`). Box actions: the policy's [-1, 1]
    is stretched over finite bounds, and anything outside the bounds is clipped. With `memory`, an
    observation is the last so many of them, 0 where an episode has not had that many.

    Raises:
        ValueError: unknown id, a package that is not installed, or an unsupported space; the
            message says what to do.
    """
    try:
        env = gym.make(environment, disable_env_checker=True)
    except ModuleNotFoundError as error:
        missing = error.name or environment.rpartition(":")[0]
        raise ValueError(
            f"{environment}: no module named {missing!r}; {_install(environment)}"
        ) from None
    except gym.error.DependencyNotInstalled:
        raise ValueError(
            f"{environment} needs a package that is not here; {_install(environment)}"
        ) from None
    except gym.error.Error as error:
        reason = one_line(error)
        raise ValueError(
            f"{environment!r} is not an environment that Gymnasium knows: {reason} "
            "An environment of your own is named `module:id`, its module registering the id."
        ) from None
    except Exception as error:  # foreign code: anything may come out of it
        raise ValueError(f"{environment} cannot be made: {one_line(error, typed=True)}") from error
    env = with_flat_spaces(env, environment)
    if memory == 1:
        return env
    if isinstance(env.observation_space, spaces.Discrete):
        env = gym.wrappers.FlattenObservation(env)  # one-hot
    return gym.wrappers.FrameStackObservation(env, memory, padding_type="zero")


def _install(environment: str) -> str:
    """Say how to install what an environment needs."""
    module, _, name = environment.rpartition(":")
    if module and name not in gym.registry:
        return f"is {module!r} importable from this folder?"
    entry_point = str(gym.spec(name).entry_point)
    for extra in ("mujoco", "box2d"):
        if f".{extra}" in entry_point:
            return f'pip install "reweigh[{extra}]"'
    return f"install the package that provides {entry_point!r}"


def schema(environment: str, env: gym.Env) -> TrajectorySchema:
    """Describe the rows that a log of this environment holds."""
    observation, action = env.observation_space, env.action_space
    return TrajectorySchema(
        environment=environment,
        observation=_array(observation),
        action=_array(action),
        discrete_actions=isinstance(action, spaces.Discrete | spaces.MultiDiscrete),
    )


def _array(space: spaces.Space) -> ArraySpec:
    assert space.shape is not None
    choices: tuple[int, ...] = ()
    if isinstance(space, spaces.Discrete):
        choices = (int(space.n),)
    elif isinstance(space, spaces.MultiDiscrete):
        choices = tuple(space.nvec.tolist())
    return ArraySpec(str(space.dtype), tuple(space.shape), choices)


def policy_description(
    env: gym.Env, hidden: Sequence[int], *, standardise: bool = False, memory: int = 1
) -> str:
    """Describe the built-in policy for an environment, as `policy.build` reads it."""
    description = policy_of(schema("", env), hidden, standardise=standardise, memory=memory)
    action = env.action_space
    if not isinstance(action, MixedRow):
        return description
    # To the log its actions are real numbers, and so the policy of them is Gaussian.
    mixed = json.loads(description)
    (size,) = mixed.pop("action_shape")
    choices = list(action.choices)
    return json.dumps(
        {**mixed, "kind": "mixed", "choices": choices, "numbers": size - len(choices)}
    )


@lru_cache(maxsize=4096)  # asked for again when the episode is logged
def episode_seed(run_seed: int, episode: int) -> int:
    """Return the seed of an episode's reset: a function of the run's seed and its number alone."""
    return int(np.random.SeedSequence([run_seed, episode]).generate_state(1)[0])


@dataclass(frozen=True)
class Slot:
    """Where one of the parallel environments stands: its episode, and the actions it has taken."""

    episode: int
    actions: Iterable[Any] = ()


def _copied(observation: Any) -> Any:
    # A copy of an array costs a tenth of a deep one.
    return observation.copy() if type(observation) is np.ndarray else deepcopy(observation)


class Guarded(gym.Wrapper):
    """Ends an episode where the environment raises, and tells why in `info[RAISED]`.

    Hands out copies of observations, since an environment may write the next one over the last.
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self._observation: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Reset; an environment that cannot even do that ends the run.

        Raises:
            ValueError: the environment raised.
        """
        try:
            observation, info = self.env.reset(seed=seed, options=options)
        except Exception as error:  # foreign code: anything may come out of it
            raise ValueError(
                f"the environment raised in reset: {one_line(error, typed=True)}"
            ) from error
        self._observation = _copied(observation)
        return self._observation, info

    def step(self, action: Any) -> Any:
        """Step; if the environment raises, truncate the episode where it stood."""
        try:
            observation, *rest = self.env.step(action)
        except Exception as error:  # foreign code: anything may come out of it
            return self._observation, 0.0, False, True, {RAISED: one_line(error, typed=True)}
        self._observation = _copied(observation)
        return self._observation, *rest


class SeededEpisodes(Guarded):
    """Plays episodes number `slot.episode`, then every `stride`-th, each reset by its own seed.

    The first reset replays the slot's actions, so that a resumed run goes on mid-episode.
    """

    def __init__(self, env: gym.Env, *, run_seed: int, slot: Slot, stride: int):
        super().__init__(env)
        self._run_seed = run_seed
        self._next_episode = slot.episode
        self._stride = stride
        self._replay = list(slot.actions)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begin the next episode with its own seed; the argument `seed` is not used."""
        del seed
        own = episode_seed(self._run_seed, self._next_episode)
        self._next_episode += self._stride
        observation, info = super().reset(seed=own, options=options)
        for action in self._replay:
            observation, *_, info = self.step(action)
        self._replay = []
        return observation, info


def make_vector(
    environment: str,
    *,
    seed: int,
    slots: Sequence[Slot],
    memory: int = 1,
    autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
) -> SyncVectorEnv:
    """Make one environment a slot, side by side, each episode seeded by its number."""

    def of(slot: Slot) -> gym.Env:
        env = make(environment, memory=memory)
        return SeededEpisodes(env, run_seed=seed, slot=slot, stride=len(slots))

    return ArrayVectorEnv([lambda s=s: of(s) for s in slots], autoreset_mode=autoreset_mode)
