"""Spaces of any kind as flat ones: what a policy sees is an array, what it does one row.

Bounds of continuous actions belong to the environment here, not to the policy: an action is
stretched from [-1, 1] to the environment's bounds and clipped at them inside the environment, and
the log keeps the action that the policy sampled. Its density is then a plain one, without the
log-prob errors that squashing makes at the bounds.
"""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TransformAction, TransformObservation

OBSERVATIONS = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these"
ACTIONS = "Box of floating point, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these"


class MixedRow(spaces.Box):
    """Rows of choices, as whole numbers from 0, and then of real numbers.

    Args:
        choices: How many there are for each of the choices.
        size: How many real numbers follow.
        dtype: Of all of them.
    """

    def __init__(self, choices: tuple[int, ...], size: int, dtype: Any):
        self.choices = choices
        free = np.full(size, np.inf)
        low = np.concatenate([np.zeros(len(choices)), -free])
        high = np.concatenate([np.array(choices) - 1, free])
        super().__init__(low.astype(dtype), high.astype(dtype), dtype=dtype)


def with_flat_spaces(env: gym.Env, environment: str) -> gym.Env:
    """Give an environment one array to show and one row to do.

    Box and Discrete observations stay; all others become the vector of `gymnasium.spaces.flatten`,
    choices one-hot. Discrete actions count from 0; one Box keeps its shape; all others become one
    row: of choices, of real numbers, or of choices and then real numbers (`MixedRow`). Choices come
    in the order of the space's parts, and so do real numbers.

    Raises:
        ValueError: a space of another kind; the message says which there may be.
    """
    observation, action = env.observation_space, env.action_space
    if not _supported(observation):
        raise ValueError(f"{environment} has observations {observation}; supported: {OBSERVATIONS}")
    if not _supported(action, floating=True) or not any(_sizes(action)):
        raise ValueError(f"{environment} has actions {action}; supported: {ACTIONS}")
    return _with_row_actions(_with_array_observations(env, observation), action)


def _supported(space: spaces.Space, *, floating: bool = False) -> bool:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return all(_supported(part, floating=floating) for part in _parts(space))
    if isinstance(space, spaces.Box):
        return not floating or np.issubdtype(space.dtype, np.floating)
    return isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)


def _parts(space: spaces.Dict | spaces.Tuple) -> list[spaces.Space]:
    return list(space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces)


def _leaves(space: spaces.Space) -> Iterator[Any]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for part in _parts(space):
            yield from _leaves(part)
    else:
        yield space


def _with_array_observations(env: gym.Env, space: spaces.Space) -> gym.Env:
    if isinstance(space, spaces.Box):
        return env
    if isinstance(space, spaces.Discrete):
        if space.start == 0:
            return env
        first_state, plain = space.start, spaces.Discrete(int(space.n))
        return TransformObservation(env, lambda index: index - first_state, plain)
    boxes = [leaf.dtype for leaf in _leaves(space) if isinstance(leaf, spaces.Box)]
    dtype = np.result_type(np.float32, *boxes)
    flat = spaces.Box(-np.inf, np.inf, (spaces.flatdim(space),), dtype.type)

    def to_vector(seen: Any) -> np.ndarray:
        return np.asarray(spaces.flatten(space, seen), dtype=dtype)

    return TransformObservation(env, to_vector, flat)


def _with_row_actions(env: gym.Env, space: spaces.Space) -> gym.Env:
    if isinstance(space, spaces.Discrete):
        if space.start == 0:
            return env
        first, plain = int(space.start), spaces.Discrete(int(space.n))
        return TransformAction(env, lambda index: index + first, plain)
    if isinstance(space, spaces.Box):
        free = spaces.Box(-np.inf, np.inf, space.shape, np.dtype(space.dtype).type)
        return TransformAction(env, _to_bounds(space), free)
    choices, size = _sizes(space)
    boxes = [leaf.dtype for leaf in _leaves(space) if isinstance(leaf, spaces.Box)]
    if not boxes:
        row = spaces.MultiDiscrete(list(choices))
    elif choices:
        row = MixedRow(choices, size, np.result_type(np.float32, *boxes))
    else:
        row = spaces.Box(-np.inf, np.inf, (size,), np.result_type(*boxes).type)
    count, assemble = len(choices), _assembler(space)

    def to_action(row: np.ndarray) -> Any:
        return assemble(iter(row[:count].astype(np.int64)), iter(row[count:]))

    return TransformAction(env, to_action, row)


def _sizes(space: spaces.Space) -> tuple[tuple[int, ...], int]:
    """Return how many there are for each choice of an action, and its count of real numbers."""
    choices: list[int] = []
    size = 0
    for leaf in _leaves(space):
        if isinstance(leaf, spaces.Box):
            size += int(np.prod(leaf.shape))
        else:
            choices += _choices(leaf).tolist()
    return tuple(choices), size


def _choices(leaf: spaces.Space) -> np.ndarray:
    if isinstance(leaf, spaces.Discrete):
        return np.array([leaf.n])
    if isinstance(leaf, spaces.MultiDiscrete):
        return leaf.nvec.ravel()
    assert isinstance(leaf, spaces.MultiBinary)
    return np.full(int(np.prod(leaf.shape)), 2)


Assemble = Callable[[Iterator[Any], Iterator[Any]], Any]
"""Takes from the choices and from the real numbers of a row what an action of a space needs."""


def _assembler(space: spaces.Space) -> Assemble:
    if isinstance(space, spaces.Dict):
        named = {name: _assembler(part) for name, part in space.spaces.items()}
        return lambda whole, real: {name: part(whole, real) for name, part in named.items()}
    if isinstance(space, spaces.Tuple):
        parts = [_assembler(part) for part in space.spaces]
        return lambda whole, real: tuple(part(whole, real) for part in parts)
    if isinstance(space, spaces.Discrete):
        number, first = np.dtype(space.dtype).type, int(space.start)
        return lambda whole, real: number(first + next(whole))
    count, shape, dtype = int(np.prod(space.shape or ())), space.shape or (), space.dtype
    if isinstance(space, spaces.Box):
        to_bounds = _to_bounds(space)
        return lambda whole, real: to_bounds(_taken(real, count).reshape(shape))
    start = space.start if isinstance(space, spaces.MultiDiscrete) else 0
    return lambda whole, real: (_taken(whole, count).reshape(shape) + start).astype(dtype)


def _taken(numbers: Iterator[Any], count: int) -> np.ndarray:
    return np.array([next(numbers) for _ in range(count)])


def _to_bounds(box: spaces.Box) -> Callable[[np.ndarray], np.ndarray]:
    """Let any number be an action: [-1, 1] covers finite bounds; what lies beyond is clipped."""
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)
    bounded = np.isfinite(low) & np.isfinite(high)
    middle = np.where(bounded, low / 2 + high / 2, 0.0)
    half_width = np.where(bounded, high / 2 - low / 2, 1.0)

    def to_bounds(action: np.ndarray) -> np.ndarray:
        # Clipped last: rounding must not carry an action out of the environment's bounds.
        return np.asarray(np.clip(middle + half_width * action, low, high), dtype=box.dtype)

    return to_bounds
