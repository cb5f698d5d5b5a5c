"""What is drawn follows the policy's probabilities, and the log-probs are of what was drawn."""

import numpy as np
import pytest
import scripted  # noqa: F401  (registers the environments)
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch.distributions import Categorical

from reweigh.acting.collect import Collector
from reweigh.acting.environments import SeededEpisodes, Slot, make, make_vector
from reweigh.acting.evaluate import greedy
from reweigh.acting.policy import CategoricalPolicy, GaussianPolicy, build
from reweigh.acting.sampling import sampler_of
from reweigh.acting.standardised import Standardised
from reweigh.acting.vector import ArrayVectorEnv

SEEN = '"observation_shape": [4], "observation_classes": 0, "hidden": [64, 64]}'
DESCRIPTIONS = {
    "categorical": '{"kind": "categorical", "actions": 5, ' + SEEN,
    "even": '{"kind": "multi_categorical", "choices": [3, 3], ' + SEEN,
    "uneven": '{"kind": "multi_categorical", "choices": [2, 4, 3], ' + SEEN,
    "gaussian": '{"kind": "gaussian", "action_shape": [2, 3], ' + SEEN,
    "number": '{"kind": "gaussian", "action_shape": [], ' + SEEN,
    "mixed": '{"kind": "mixed", "choices": [2, 3], "numbers": 2, ' + SEEN,
}
for _kind in ("uneven", "gaussian", "mixed"):
    DESCRIPTIONS[f"standardised {_kind}"] = DESCRIPTIONS[_kind][:-1] + ', "standardise": true}'
COUNT = 8


def policy_and_observations(kind, spread=1.0):
    """A policy far from uniform, and a batch of observations."""
    torch.manual_seed(4)
    policy = build(DESCRIPTIONS[kind])
    with torch.no_grad():
        for module in policy.modules():
            if isinstance(module, torch.nn.Linear) and module.out_features < 64:
                module.weight.normal_(0, 0.2 * spread)
                module.bias.normal_(0, spread)
            if isinstance(module, GaussianPolicy):
                module.spread.normal_()
            if isinstance(module, Standardised):
                module.observation_mean.normal_()
                module.observation_deviation.uniform_(0.5, 2)
                module.action_mean.normal_()
                module.action_deviation.uniform_(0.5, 2)
    return policy, torch.randn(COUNT, 4).numpy()


def draws(policy, observations, ticks, seed=0):
    with torch.no_grad():
        sampler = sampler_of(policy, version=0, seed=seed)
        actions = np.stack([sampler.act(observations) for _ in range(ticks)])
        seen = np.stack([observations] * ticks)
        return actions, sampler.log_probs(seen, actions)


class Called(torch.nn.Module):
    """The same policy, which nothing can take apart."""

    def __init__(self, policy):
        super().__init__()
        self.policy = policy

    def forward(self, observations):
        return self.policy(observations)


def moments(actions):
    """Of each number of an action: how often it is 0, 1, ..., and its mean and square."""
    features = [np.ones(len(actions))]
    for column in actions.reshape(len(actions), -1).T.astype(np.float64):
        whole = (column == np.round(column)).all()
        features += [column == i for i in range(5)] if whole else [column, column**2]
    return np.stack(features, 1).astype(np.float64)


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_a_policy_taken_apart_draws_as_it_does_when_called(kind):
    policy, observations = policy_and_observations(kind)
    one = np.repeat(observations[:1], 2000, axis=0)
    mine, _ = draws(policy, one, 5, seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        its, _ = draws(Called(policy), one, 5)
    assert mine.dtype == its.dtype and mine.shape == its.shape
    mine, its = (moments(x.reshape(10_000, *x.shape[2:])) for x in (mine, its))
    error = np.sqrt((mine.var(0) + its.var(0)) / 10_000)
    assert (np.abs(mine.mean(0) - its.mean(0)) <= 4 * error).all()


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_log_probs_are_of_the_distribution_that_was_drawn_from(kind):
    policy, observations = policy_and_observations(kind, spread=3.0)
    actions, log_probs = draws(policy, observations, 200)
    networks = [part for part in policy.modules() if isinstance(part, torch.nn.Sequential)]
    with torch.no_grad():
        outputs = [part(observations) for part in sampler_of(policy, version=0, seed=0).parts]
        assert all(output.dtype == np.float32 for output in outputs)
        assert len(outputs) == len(networks)
        for network, output in zip(networks, outputs, strict=True):
            network.forward = lambda _, output=output: torch.from_numpy(output)
        drawn_from = policy(torch.from_numpy(observations))
        expected = drawn_from.log_prob(torch.from_numpy(actions)).double().numpy()
    assert np.abs(log_probs - expected).max() < 1e-5


@pytest.mark.parametrize("width", [64, 200])
def test_a_network_taken_apart_computes_what_it_does_when_called(width):
    for classes, observations in (
        (0, torch.randn(COUNT, 3, dtype=torch.float64)),
        (7, torch.arange(COUNT) % 7),
    ):
        policy = CategoricalPolicy((3,), classes, 4, (width, width))
        policy.logits.insert(1, torch.nn.ReLU())  # what numpy does not know is called
        (part,) = sampler_of(policy, version=0, seed=0).parts
        with torch.no_grad():
            expected = policy.logits(observations).numpy()
            np.testing.assert_allclose(part(observations.numpy()), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_the_most_likely_actions_are_the_policys(kind):
    policy, observations = policy_and_observations(kind)
    with torch.no_grad():
        expected = policy(torch.from_numpy(observations)).mode.numpy()
    got, called = greedy(policy, observations), greedy(Called(policy), observations)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6, strict=True)
    np.testing.assert_array_equal(called, expected, strict=True)


def test_draws_are_a_function_of_the_seed_and_leave_the_global_random_states():
    policy, observations = policy_and_observations("mixed")
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    a, b, c = (draws(policy, observations, 20, seed=seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    np.testing.assert_array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.random.get_rng_state())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_a_policy_of_nan_is_refused_before_it_acts(kind, value):
    policy, observations = policy_and_observations(kind)
    for part in policy.modules():
        if isinstance(part, torch.nn.Linear) and part.out_features < 64:
            part.bias.data.fill_(value)
    with pytest.raises(ValueError, match="policy version 0 gives NaN: it has diverged; try a sm"):
        sampler_of(policy, version=0, seed=0).act(observations)


def test_choices_that_cannot_be_are_never_made():
    policy, observations = policy_and_observations("categorical")
    policy.logits[-1].bias.data[[0, 2, 4]] = -torch.inf
    actions, log_probs = draws(policy, observations, 50)
    assert set(actions.ravel()) == {1, 3}
    assert np.isfinite(log_probs).all()


@pytest.mark.parametrize("kind", ["categorical", "uneven", "gaussian", "mixed"])
def test_a_network_that_is_no_sequence_of_layers_is_called(kind):
    policy, observations = policy_and_observations(kind)
    part = policy.choices if kind == "mixed" else policy
    name = "mean" if kind == "gaussian" else "logits"
    expected = greedy(policy, observations)
    setattr(part, name, Called(getattr(part, name)))
    assert not hasattr(sampler_of(policy, version=0, seed=0), "parts")
    np.testing.assert_allclose(greedy(policy, observations), expected, rtol=1e-5, atol=1e-6)


class Mine(torch.nn.Module):
    """No policy of this package, with a draw of its own at every call."""

    def forward(self, observations):
        return Categorical(logits=torch.randn(len(observations), 2))


def test_any_other_policy_is_called_and_its_own_distribution_logged():
    class Changed(CategoricalPolicy):
        def forward(self, observations):
            return Categorical(probs=torch.tensor([0.0, 1.0]).expand(len(observations), 2))

    envs = make_vector("Counting-v0", seed=1, slots=[Slot(0), Slot(1)])
    t = Collector(envs, 1).collect(Changed((3,), 0, 2, ()), version=0, steps=20).trajectories
    assert (t.actions == 1).all() and np.abs(t.log_prob_behaviour).max() < 1e-6
    collected = [
        Collector(make_vector("Counting-v0", seed=1, slots=[Slot(0)]), 1)
        .collect(Mine(), version=0, steps=20)
        .trajectories
        for _ in range(2)
    ]
    assert len(set(collected[0].log_prob_behaviour)) == collected[0].steps
    np.testing.assert_array_equal(collected[0].log_prob_behaviour, collected[1].log_prob_behaviour)


def test_a_vector_environment_may_write_over_what_it_returned():
    def of(copy):
        envs = SyncVectorEnv(
            [lambda: make("CartPole-v1")] * 2, copy=copy, autoreset_mode="SameStep"
        )
        envs.reset(seed=1)
        for env in envs.envs:
            env.unwrapped.reset = lambda **_: (np.zeros(4, np.float32), {})
        return Collector(envs, 1).collect(policy, version=0, steps=9).trajectories

    policy = CategoricalPolicy((4,), 0, 2, (8,))
    a, b = of(True), of(False)
    assert len(np.unique(a.observations, axis=0)) > 4
    np.testing.assert_array_equal(a.observations, b.observations)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("name", ["Counting-v0", "Raising-v0", "Overwriting-v0", "FromOne-v0"])
def test_the_vector_environment_does_what_gymnasiums_does(name, mode):
    def envs(kind):
        def of(i):
            return lambda: SeededEpisodes(make(name), run_seed=5, slot=Slot(i), stride=3)

        return kind([of(i) for i in range(3)], autoreset_mode=mode)

    mine, its = envs(ArrayVectorEnv), envs(SyncVectorEnv)
    np.testing.assert_array_equal(mine.reset()[0], its.reset()[0], strict=True)
    random = np.random.default_rng(0)
    kept = []
    for _ in range(40):
        actions = random.integers(0, 2, 3)
        a, b = mine.step(actions), its.step(actions)
        for x, y in zip(a[:-1], b[:-1], strict=True):
            np.testing.assert_array_equal(x, y, strict=True)
        assert_same_infos(a[-1], b[-1])
        kept.append((a, [np.copy(x) for x in a[:-1]]))
    for a, copies in kept:
        for x, y in zip(a[:-1], copies, strict=True):
            np.testing.assert_array_equal(x, y, "nothing returned is written over")


def assert_same_infos(a, b):
    assert list(a) == list(b)
    for name, value in a.items():
        if isinstance(value, dict):
            assert_same_infos(value, b[name])
        else:
            assert value.dtype == b[name].dtype
            for x, y in zip(value, b[name], strict=True):
                np.testing.assert_array_equal(x, y)
