"""Spaces of every kind: the environment gets the action its space says, and policies learn it."""

import acting_samples
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from reweigh.acting.collect import Collector
from reweigh.acting.environments import Slot, make, make_vector, policy_description, schema
from reweigh.acting.policy import GaussianPolicy, MultiCategoricalPolicy, build
from reweigh.acting.spaces import MixedRow
from reweigh.train.config import TrainConfig
from reweigh.train.loop import train
from reweigh.train.run import Run
from reweigh.train.start import collect_here, new_run

KINDS = sorted(acting_samples.SPACES)
SMALL = {
    "seed": 1,
    "steps": 800,
    "iteration_steps": 160,
    "hidden": (32,),
    "discount": 0.0,
    "entropy": 0.0,
    "learning_rate": 0.01,
    "reuse": 4,
    "epochs": 10,
    "check_every": 800,
    "evaluation_episodes": 20,
}


def environment(kind):
    return f"Echo{kind}-v0"


def started(path, kind, **options):
    return new_run(path, TrainConfig(**{**SMALL, "environment": environment(kind), **options}))


def finish(run):
    return list(train(run, collect_here(run)))


ROWS = [
    ("MultiDiscrete", [0, 1], [1, 0]),
    ("MultiDiscreteTable", [1, 2, 0, 1], [[1, 7], [-7, 2]]),
    ("MultiBinary", [1, 0, 1], [1, 0, 1]),
    ("MultiBinaryTable", [1, 0, 0, 1], [[1, 0], [0, 1]]),
    ("Dict", [1, 0, 2], {"flags": ([1, 0],), "move": 6}),  # sorted by name
    ("Tuple", [1, 2, 1], (1, [3, 1])),
    ("DictOfBoxes", [0, 1, 0, -0.5], {"a": [[-1, 0]], "b": [0, 3]}),
    ("TupleOfBoxes", [-1, 9, 0.5], ([-1, 6], {"deep": 0.75})),
    ("MixedDict", [2, 0.5, -9], {"force": [0.5, 2], "gear": 3}),
    (
        "MixedTuple",
        [1, 0, 1, 0, 0.5, 1, -1],
        ([0, 5], [1, 0], {"x": [1, 2], "y": 1}),
    ),
]


@pytest.mark.parametrize(("kind", "row", "action"), ROWS, ids=[kind for kind, *_ in ROWS])
def test_a_row_becomes_the_action_that_the_space_says(kind, row, action):
    env = make(environment(kind))
    env.reset(seed=0)
    row = np.array(row, env.action_space.dtype)
    assert env.action_space.contains(row)
    env.step(row)
    space = env.unwrapped.action_space
    assert space.contains(env.unwrapped.action)
    assert_same(space, action, env.unwrapped.action)


def assert_same(space, wanted, done):
    if isinstance(space, spaces.Dict):
        assert list(done) == list(wanted) == list(space)
        for name in space:
            assert_same(space[name], wanted[name], done[name])
    elif isinstance(space, spaces.Tuple):
        for three in zip(space, wanted, done, strict=True):
            assert_same(*three)
    else:
        np.testing.assert_array_equal(done, np.array(wanted, space.dtype))
        assert done.dtype == space.dtype and done.shape == space.shape


def test_every_kind_has_a_row():
    assert sorted(kind for kind, *_ in ROWS) == KINDS


def test_observations_are_flattened_with_choices_one_hot():
    env = make(environment("MixedTuple"))
    seen, _ = env.reset(seed=3)
    force, flags, inner = env.unwrapped.wanted
    expected = [*force, *flags, *inner["x"], *np.eye(2)[inner["y"]]]
    np.testing.assert_array_equal(seen, np.array(expected, np.float32), strict=True)
    env = make(environment("MultiDiscreteTable"))
    seen, _ = env.reset(seed=3)
    table = env.unwrapped.wanted - env.unwrapped.observation_space.start
    expected = np.concatenate([np.eye(n)[i] for n, i in zip([2, 3, 3, 2], table.flat, strict=True)])
    np.testing.assert_array_equal(seen, expected.astype(np.float32), strict=True)
    assert make(environment("TupleOfBoxes")).observation_space.dtype == np.float64


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_of_every_kind_is_what_its_schema_says(kind, tmp_path):
    run = started(tmp_path / "run", kind, steps=160)
    finish(run)
    t = run.log.read()
    t.validate(schema(environment(kind), make(environment(kind))))
    with torch.no_grad():
        policy = run.load_policy(0)
        again = policy(torch.from_numpy(t.observations)).log_prob(torch.from_numpy(t.actions))
    np.testing.assert_allclose(t.log_prob_behaviour, again.double().numpy(), rtol=0, atol=1e-5)
    action = make(environment(kind)).action_space
    assert all(action.contains(row) for row in t.actions)
    if isinstance(action, spaces.MultiDiscrete):
        assert run.log.schema.discrete_actions
        assert run.log.schema.action.choices == tuple(action.nvec)
        for column, choices in zip(t.actions.T, action.nvec, strict=True):
            assert set(column) == set(range(choices)), "a new policy does everything"


@pytest.mark.parametrize("kind", ["Dict", "TupleOfBoxes", "MixedTuple"])
def test_a_stopped_run_goes_on_bit_for_bit(kind, tmp_path):
    options = {"steps": 180, "iteration_steps": 37, "environments": 3}
    whole = started(tmp_path / "whole", kind, **options)
    finish(whole)
    stopped = started(tmp_path / "stopped", kind, **options)
    for _ in zip(range(2), train(stopped, collect_here(stopped)), strict=False):
        pass
    stopped = Run.open(tmp_path / "stopped")
    finish(stopped)
    a, b = whole.log.read(), stopped.log.read()
    for name in ("observations", "actions", "rewards", "log_prob_behaviour", "final_observations"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    last = whole.policies.latest()
    x, y = whole.policies.load(last), stopped.policies.load(last)
    assert all(torch.equal(x[name], y[name]) for name in x)


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_learns_to_do_as_it_is_shown(kind, tmp_path):
    # Without looking, the best is 7.5 of 10 where all are real numbers, and 5 where none is.
    boxes = "Box" in str(acting_samples.SPACES[kind])
    (*_, last) = finish(started(tmp_path / "run", kind))
    assert last.evaluation_return >= (8.5 if boxes else 9.5)


def mixed():
    torch.manual_seed(0)
    description = policy_description(make(environment("MixedTuple")), (4,))
    policy = build(description)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter)
    observations = torch.randn(5, *make(environment("MixedTuple")).observation_space.shape)
    return policy, observations


def test_the_log_prob_of_a_mixed_row_is_that_of_its_parts():
    policy, observations = mixed()
    assert isinstance(policy.choices, MultiCategoricalPolicy)
    assert isinstance(policy.numbers, GaussianPolicy)
    distribution = policy(observations)
    rows = distribution.sample()
    assert rows.shape == (5, 7) and rows.dtype == torch.float32
    choices = rows[:, :3].long()
    logits = policy.choices.logits(observations).split([2, 2, 2], 1)
    expected = sum(
        torch.log_softmax(part, 1).gather(1, choices[:, i : i + 1])[:, 0]
        for i, part in enumerate(logits)
    )
    mean, std = policy.numbers.mean(observations), 3 * policy.numbers.spread.sigmoid()
    density = -((rows[:, 3:] - mean) ** 2) / (2 * std**2) - std.log() - np.log(2 * np.pi) / 2
    torch.testing.assert_close(distribution.log_prob(rows), expected + density.sum(1))
    entropies = [-(part.softmax(1) * part.log_softmax(1)).sum(1) for part in logits]
    normal = (std.log() + 0.5 * np.log(2 * np.pi * np.e)).sum()
    torch.testing.assert_close(distribution.entropy(), sum(entropies) + normal)
    best = torch.stack([part.argmax(1) for part in logits], 1)
    torch.testing.assert_close(distribution.mode, torch.cat([best.float(), mean], 1))
    assert repr(distribution)


def test_rows_of_choices_and_numbers_know_their_choices():
    row = make(environment("MixedTuple")).action_space
    assert isinstance(row, MixedRow)
    assert row.choices == (2, 2, 2)
    assert not row.contains(np.array([2, 0, 0, 0, 0, 0, 0], np.float32))


def test_a_gymnasium_id_of_a_plain_space_is_as_it_was():
    for name in ("CartPole-v1", "Pendulum-v1"):
        env, plain = make(name), gym.make(name)
        assert env.observation_space == plain.observation_space
        assert env.action_space.shape == plain.action_space.shape


def test_collection_is_a_function_of_the_seed_in_every_kind():
    for kind in KINDS:
        policy = build(policy_description(make(environment(kind)), (8,)))
        a, b = (
            Collector(make_vector(environment(kind), seed=4, slots=[Slot(0), Slot(1)]), 4)
            .collect(policy, version=0, steps=30)
            .trajectories
            for _ in range(2)
        )
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(a.log_prob_behaviour, b.log_prob_behaviour)
