"""Collection loses, doubles and mislabels nothing; policies know the log-probs they act with."""

import json
from importlib.util import find_spec

import gymnasium as gym
import numpy as np
import pytest
import scripted  # noqa: F401  (registers the environments)
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import reweigh.acting.evaluate as evaluation
from reweigh.acting.collect import Collector, Position
from reweigh.acting.environments import (
    Slot,
    episode_seed,
    make,
    make_vector,
    policy_description,
    schema,
)
from reweigh.acting.policy import CategoricalPolicy, GaussianPolicy, build
from reweigh.data.trajectories import Trajectories

MODES = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP]


def collector(environment, mode=AutoresetMode.SAME_STEP, count=3, seed=5):
    slots = [Slot(i) for i in range(count)]
    return Collector(make_vector(environment, seed=seed, slots=slots, autoreset_mode=mode), seed)


def counting_policy(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CategoricalPolicy((3,), 0, 2, (8,))


def collect_many(collector, policy, sizes):
    return [collector.collect(policy, version=v, steps=n) for v, n in enumerate(sizes)]


@pytest.mark.parametrize("mode", MODES)
def test_every_step_is_there_once_and_labelled_right(mode):
    many = collect_many(collector("Counting-v0", mode), counting_policy(), [7, 1, 30, 2, 2, 2, 16])
    everything = Trajectories.concatenate([c.trajectories for c in many]).in_episode_order()
    everything.validate(schema("Counting-v0", make("Counting-v0")))
    first, last = everything.episode_spans()
    returns = []
    for e in np.unique(everything.episode):
        assert (everything.episode[first] == e).sum() == 1, "one unbroken run an episode"
    for i, j in zip(first, last, strict=True):
        seed = episode_seed(5, everything.episode[i])
        steps = slice(everything.start[i], everything.stop[j])
        length = everything.lengths[i : j + 1].sum()
        assert everything.time_start[i] == 0
        assert set(everything.seed[i : j + 1]) == {seed}
        taken = np.concatenate([[0], np.cumsum(everything.actions[steps])])
        expected = np.stack([np.full(length + 1, seed), np.arange(length + 1), taken], axis=1)
        np.testing.assert_array_equal(everything.observations[steps], expected[:-1])
        np.testing.assert_array_equal(everything.final_observations[j], expected[-1])
        np.testing.assert_array_equal(everything.rewards[steps], np.arange(length) + 1)
        ended = length == 1 + seed % 5
        assert everything.terminated[j] == (ended and seed % 2 == 1)
        assert everything.truncated[j] == (ended and seed % 2 == 0)
        if ended:
            returns.append(length * (length + 1) / 2)
    assert sorted(returns) == sorted(r for c in many for r in c.returns)
    assert sum(c.steps for c in many) == everything.steps
    assert [c.trajectories.policy_version[0] for c in many] == list(range(len(many)))


def test_both_modes_meet_the_same_episodes():
    policy = counting_policy()
    policy.logits[-1].weight.data.zero_()
    policy.logits[-1].bias.data[:] = torch.tensor([-1e9, 0.0])  # always action 1
    same, following = (collector("Counting-v0", mode, count=1) for mode in MODES)
    a = same.collect(policy, version=0, steps=40).trajectories
    b = following.collect(policy, version=0, steps=40).trajectories
    for name in (
        "observations",
        "rewards",
        "final_observations",
        "terminated",
        "truncated",
        "seed",
    ):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_recorded_log_probs_are_the_policys():
    policy = counting_policy()
    t = collector("Counting-v0").collect(policy, version=0, steps=50).trajectories
    again = policy(torch.from_numpy(t.observations)).log_prob(torch.from_numpy(t.actions))
    np.testing.assert_allclose(t.log_prob_behaviour, again.detach().numpy(), rtol=0, atol=1e-6)


def test_collection_depends_on_seed_and_version_alone_and_leaves_the_global_random_state():
    policy = counting_policy()
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    a = collector("Counting-v0").collect(policy, version=3, steps=50).trajectories
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    b = collector("Counting-v0").collect(policy, version=3, steps=50).trajectories
    c = collector("Counting-v0").collect(policy, version=4, steps=50).trajectories
    np.testing.assert_array_equal(a.actions, b.actions)
    assert a.steps != c.steps or (a.actions != c.actions).any()


@pytest.mark.parametrize(("until_ended", "expected"), [(0, 64), (64, 64), (65, 128), (1000, 256)])
def test_a_collection_goes_on_until_an_episode_has_ended(until_ended, expected):
    policy = GaussianPolicy((3,), 0, (1,), ())  # an episode of Pendulum takes 200 steps
    one = collector("Pendulum-v1", count=1)
    collected = one.collect(policy, version=0, steps=64, until_ended=until_ended)
    assert collected.steps == collected.trajectories.steps == expected
    assert len(collected.returns) == (expected > 200)
    no_longer = collector("Pendulum-v1", count=1).collect(policy, version=0, steps=64)
    np.testing.assert_array_equal(
        collected.trajectories.actions[:64], no_longer.trajectories.actions
    )


def test_a_replayed_collector_goes_on_as_if_nothing_had_happened():
    policy = counting_policy()
    whole = collector("Counting-v0")
    first = whole.collect(policy, version=0, steps=31).trajectories
    slots = []
    for position in whole.positions:
        mine = first.select(first.episode == position.episode)
        slots.append(Slot(position.episode, mine.actions))
    resumed = Collector(
        make_vector("Counting-v0", seed=5, slots=slots),
        5,
        [Position(p.episode, p.time, p.episode_return) for p in whole.positions],
    )
    np.testing.assert_array_equal(resumed.observations, whole.observations)
    a = whole.collect(policy, version=1, steps=40)
    b = resumed.collect(policy, version=1, steps=40)
    np.testing.assert_array_equal(a.trajectories.observations, b.trajectories.observations)
    np.testing.assert_array_equal(a.trajectories.episode, b.trajectories.episode)
    assert a.returns == b.returns


@pytest.mark.parametrize("mode", MODES)
def test_an_episode_in_which_the_environment_raises_is_dropped_and_said(mode):
    collected = collector("Raising-v0", mode).collect(counting_policy(), version=0, steps=90)
    t = collected.trajectories
    t.validate(schema("Raising-v0", make("Raising-v0")))
    assert collected.dropped
    assert all(
        "the environment raised RuntimeError: the arm fell off" in d for d in collected.dropped
    )
    bad = [d.split()[1] for d in collected.dropped]
    assert all(episode_seed(5, int(e)) % 3 == 0 for e in bad)
    assert not set(t.episode) & {int(e) for e in bad}
    assert t.steps + sum(3 for _ in bad) == collected.steps


def test_an_environment_that_only_raises_ends_the_run_with_its_own_words():
    with pytest.raises(ValueError, match="OSError: cable unplugged"):
        collector("AlwaysRaising-v0").collect(counting_policy(), version=0, steps=9)


def test_a_policy_of_nan_is_named_by_its_version():
    policy = counting_policy()
    policy.logits[-1].bias.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="policy version 17 gives NaN"):
        collector("Counting-v0").collect(policy, version=17, steps=9)


def test_a_vector_environment_without_autoreset_is_refused():
    envs = SyncVectorEnv([lambda: make("Counting-v0")], autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(ValueError, match="SAME_STEP or NEXT_STEP"):
        Collector(envs, 0)


def test_bounded_actions_are_stretched_and_clipped_inside_the_environment():
    env = make("Bounded-v0")
    env.reset(seed=0)
    for action, expected in [([0, 0], [2, -2]), ([1, -1], [3, -4]), ([7, 0.5], [3, -1])]:
        env.step(np.array(action, dtype=np.float32))
        np.testing.assert_allclose(env.unwrapped.last, expected, rtol=1e-6)
    policy = build(policy_description(env, (4,)))
    envs = SyncVectorEnv([lambda: make("Bounded-v0")], autoreset_mode=AutoresetMode.SAME_STEP)
    t = Collector(envs, 1).collect(policy, version=0, steps=200).trajectories
    assert (np.abs(t.actions) > 1).any(), "the log keeps what was sampled, beyond the bounds too"
    oracle = -0.5 * (t.actions**2).sum(1) - np.log(2 * np.pi)  # mean 0, deviation 1, two dimensions
    mean = policy(torch.from_numpy(t.observations)).mean
    assert mean.abs().max() == 0, "the observations are zero and so is the bias"
    np.testing.assert_allclose(t.log_prob_behaviour, oracle, rtol=1e-6)


def test_no_policy_widens_for_ever_and_rounding_never_leaves_the_bounds():
    policy = build(policy_description(make("Bounded-v0"), (4,)))
    policy.spread.data.fill_(1e9)
    assert (policy(torch.zeros(1, 2, 2)).base_dist.stddev <= 3).all()
    env = make("OddBounds-v0")
    env.reset(seed=0)
    for action in np.linspace(-3, 3, 101, dtype=np.float32):
        env.step(np.full(2, action, np.float32))
        assert env.unwrapped.action_space.contains(env.unwrapped.last)


@pytest.mark.parametrize("mode", MODES)
def test_an_environment_that_writes_over_its_observations_is_recorded_right(mode):
    policy = build(policy_description(make("Overwriting-v0"), (4,)))
    t = collector("Overwriting-v0", mode).collect(policy, version=0, steps=40).trajectories
    np.testing.assert_array_equal(t.final_observations[t.truncated][:, 0], 10)
    first = t.start[t.time_start == 0]
    np.testing.assert_array_equal(t.observations[first][:, 0], 0)


def test_observations_that_are_not_finite_are_the_environments_fault():
    policy = build(policy_description(make("Scalar-v0"), (4,)))
    with pytest.raises(ValueError, match=r"observations: nan at step 3 of episode"):
        collector("Scalar-v0").collect(policy, version=0, steps=40)


def test_an_environment_without_a_time_limit_is_evaluated_to_a_limit(monkeypatch):
    monkeypatch.setattr(evaluation, "LIMIT", 7)
    policy = build(policy_description(make("Unrepeatable-v0"), (4,)))
    assert evaluation.evaluate(policy, "Unrepeatable-v0", episodes=2, seed=0).tolist() == [7, 7]


def test_an_environment_that_cannot_be_constructed_or_reset_is_one_line():
    with pytest.raises(ValueError, match="cannot be made: KeyError"):
        make("Unmade-v0")
    with pytest.raises(ValueError, match="raised in reset: ZeroDivisionError"):
        collector("Unready-v0")


def test_discrete_actions_count_from_zero_and_discrete_observations_are_one_hot():
    env = make("FromOne-v0")
    policy = build(policy_description(env, (4,)))
    envs = SyncVectorEnv([lambda: make("FromOne-v0")], autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=3)
    vector = make_vector("FromOne-v0", seed=0, slots=[Slot(0), Slot(1)])
    t = Collector(vector, 0).collect(policy, version=0, steps=60).trajectories
    np.testing.assert_array_equal(t.rewards, t.actions + 1)
    assert set(t.actions) == {0, 1, 2}
    first = policy.logits[1].weight @ torch.eye(7)[3]
    np.testing.assert_allclose(
        policy.logits[:2](torch.tensor([3]))[0].detach(), first.detach(), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ("CartPol-v1", "Did you mean: `CartPole`"),
        ("CartPole-v77", "CartPole-v77"),
        ("nowhere_at_all:Thing-v0", "nowhere_at_all"),
        (
            "SequenceObservations-v0",
            r"has observations Tuple\(Sequence.*supported: Box, Discrete, Multi",
        ),
        (
            "WholeNumberActions-v0",
            r"has actions Dict\('count': Box.*supported: Box of floating point",
        ),
        (
            "NoActions-v0",
            r"has actions Tuple\(\); supported: Box of floating point, Discrete, Multi",
        ),
    ],
)
def test_what_cannot_be_made_is_said_in_one_line(environment, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(environment)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "module", "command"),
    [
        ("InvertedPendulum-v5", "mujoco", 'pip install "reweigh\\[mujoco\\]"'),
        ("LunarLander-v3", "Box2D", 'pip install "reweigh\\[box2d\\]"'),
    ],
)
def test_a_missing_extra_is_named_with_its_command(environment, module, command):
    if find_spec(module):  # importing Box2D crashes where warnings are errors
        pytest.skip(f"{module} is installed")
    with pytest.raises(ValueError, match=command):
        make(environment)


def test_policies_are_rebuilt_from_their_description():
    for environment in ("CartPole-v1", "Pendulum-v1", "FromOne-v0", "Bounded-v0"):
        env = make(environment)
        description = policy_description(env, (16, 8))
        policy = build(description)
        assert isinstance(policy, CategoricalPolicy | GaussianPolicy)
        observations = torch.as_tensor(np.stack([env.observation_space.sample()] * 4))
        action = policy(observations).sample()
        assert env.action_space.contains(action[0].numpy())
        assert policy(observations).log_prob(action).shape == (4,)
    with pytest.raises(ValueError, match="policy kind 'table'"):
        build(json.dumps({"kind": "table"}))


def test_gymnasium_still_resets_as_this_package_assumes():
    envs = gym.make_vec("CartPole-v1", num_envs=1, vectorization_mode="sync")
    assert envs.metadata["autoreset_mode"] in MODES
