"""Random trajectories of any schema, for the tests of reweigh.data."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from reweigh.data import ArraySpec, Trajectories, TrajectorySchema

CARTPOLE = TrajectorySchema("CartPole-v1", ArraySpec("float32", (4,)), ArraySpec("int64", ()), True)


def random_array(rng: np.random.Generator, spec: ArraySpec, entries: int) -> np.ndarray:
    """Any finite bits of the dtype, -0.0 among them."""
    dtype = np.dtype(spec.dtype)
    raw = rng.integers(0, 256, size=(entries, spec.size * dtype.itemsize), dtype=np.uint8)
    if dtype.kind == "b":
        raw &= 1
    array = raw.reshape(-1).view(dtype).reshape(entries, *spec.shape)
    if dtype.kind == "f":
        array = np.where(np.isfinite(array), array, dtype.type(-0.0))
    return array


def random_trajectories(
    schema: TrajectorySchema,
    lengths: Sequence[int],
    rng: np.random.Generator,
    *,
    version: int = 0,
    first_episode: int = 0,
) -> Trajectories:
    """Whole episodes of the given lengths, with consecutive numbers."""
    n, steps = len(lengths), sum(lengths)
    terminated = rng.random(n) < 0.5
    return Trajectories(
        observations=random_array(rng, schema.observation, steps),
        actions=random_array(rng, schema.action, steps),
        rewards=random_array(rng, ArraySpec("float64", ()), steps),
        log_prob_behaviour=-np.abs(random_array(rng, ArraySpec("float64", ()), steps)),
        lengths=np.array(lengths, dtype=np.int64),
        final_observations=random_array(rng, schema.observation, n),
        terminated=terminated,
        truncated=~terminated,
        policy_version=np.full(n, version),
        episode=np.arange(first_episode, first_episode + n),
        seed=rng.integers(-(2**63), 2**63 - 1, size=n),
        time_start=np.zeros(n, dtype=np.int64),
    )


def assert_same_bits(left: Trajectories, right: Trajectories) -> None:
    for field in fields(Trajectories):
        a, b = getattr(left, field.name), getattr(right, field.name)
        assert (a.dtype, a.shape) == (b.dtype, b.shape), field.name
        assert a.tobytes() == b.tobytes(), field.name
