"""A policy to begin with must not have seen what came of the episodes that test it."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from problems import improvable
from simulated import tabular_policy
from torch import nn
from torch.distributions import Categorical

import reweigh as rw
from reweigh.learning.config import LearnConfig
from reweigh.learning.learn import learn

PROBLEM = improvable(1, horizon=5)
QUICK = LearnConfig(hidden=(8,), minibatches=1, epochs=2, discount=PROBLEM.discount)
UNSEEN = "sampled no part of the log: the verdict is right only if it has not seen"


def leaning(amount, rows=slice(None)):
    """Action probabilities of a policy that takes the first action more often."""
    logits = np.log(PROBLEM.behaviour)
    logits[rows, 0] += amount
    probabilities = np.exp(logits)
    return probabilities / probabilities.sum(1, keepdims=True)


def two_versions(second, versions=(3, 7), episodes=300):
    """Episodes of the behaviour, then of another policy."""
    first = PROBLEM.sample(episodes, seed=0)
    later = replace(PROBLEM, behaviour=second).sample(episodes, seed=1)
    later = replace(later, episode=later.episode + episodes)
    logs = [
        replace(log, policy_version=np.full(len(log), version))
        for log, version in zip((first, later), versions, strict=True)
    ]
    return rw.Trajectories.concatenate(logs)


LATER = leaning(0.3)
LOG = two_versions(LATER)


def notes(policy, log=LOG):
    return learn(log, policy, config=QUICK).notes


def refused(policy, log=LOG):
    with pytest.raises(ValueError, match="may have been trained on") as error:
        learn(log, policy, config=QUICK)
    return str(error.value)


def test_the_policy_of_a_later_version_is_refused_with_what_to_do():
    assert refused(tabular_policy(LATER)) == (
        "the policy to begin with is the one that sampled the steps of version 7 in the log, and "
        "may have been trained on the log's episodes of version 3, so that a test on them would "
        "prove nothing: begin with version 3, or learn from a log that holds the episodes of "
        "version 7 alone"
    )


def test_the_oldest_is_taken_and_so_is_any_by_its_own_episodes_alone():
    assert not any(UNSEEN in note for note in notes(PROBLEM.behaviour_policy()))
    alone = LOG.select(LOG.policy_version == 7)
    assert notes(tabular_policy(LATER), alone) == ()


def test_log_probabilities_of_few_decimals_are_still_those_of_a_policy():
    for rounded in (
        LOG.log_prob_behaviour.astype(np.float32).astype(np.float64),
        LOG.log_prob_behaviour.round(3),
    ):
        log = replace(LOG, log_prob_behaviour=rounded)
        refused(tabular_policy(LATER), log)
        assert not any(UNSEEN in note for note in notes(PROBLEM.behaviour_policy(), log))


def test_a_later_policy_that_differs_in_few_states_is_refused_too():
    """Where it is the older one but in one state, it agrees with both to a thousandth a step."""
    later = leaning(1e-3, rows=slice(1))
    log = two_versions(later)
    refused(tabular_policy(later), log)
    assert notes(PROBLEM.behaviour_policy(), log) == ()


def test_versions_that_are_one_policy_are_taken():
    log = two_versions(PROBLEM.behaviour)
    assert notes(PROBLEM.behaviour_policy(), log) == ()
    assert (
        notes(
            PROBLEM.behaviour_policy(),
            replace(log, log_prob_behaviour=log.log_prob_behaviour.round(4)),
        )
        == ()
    )


def test_a_policy_that_sampled_nothing_is_taken_with_a_note():
    policy = tabular_policy(leaning(0.1))
    assert sum(UNSEEN in note for note in notes(policy)) == 1
    assert sum(UNSEEN in note for note in notes(policy, PROBLEM.sample(300, seed=0))) == 1


def test_an_estimate_of_several_policies_is_taken_with_a_note(tmp_path):
    for name, log, expected in (("two", LOG, 1), ("one", LOG.select(LOG.policy_version == 3), 0)):
        stored = rw.TrajectoryLog.create(tmp_path / name, PROBLEM.schema)
        stored.append(log)
        found = learn(stored, config=replace(QUICK, validation=0.25)).notes
        assert (
            sum("right only if none of them has seen the rewards" in x for x in found) == expected
        )


# ------------------------------------------------------------------ why it is refused


class Network(nn.Module):
    """Two actions by eight numbers, each half of the time until it is trained."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 2))
        for parameter in self.layers[2].parameters():
            nn.init.zeros_(parameter)

    def forward(self, observations):
        return Categorical(logits=self.layers(observations.float()))


def chance(policy, version, seed, episodes=500):
    """One step an episode, whose reward is chance alone: no policy is better than another."""
    rng = np.random.default_rng(seed)
    seen = rng.normal(size=(episodes, 8))
    distribution = policy(torch.tensor(seen))
    actions = torch.tensor(
        (rng.random(episodes) < distribution.probs[:, 1].detach().numpy()).astype(np.int64)
    )
    nothing = np.zeros(episodes, dtype=np.int64)
    return rw.Trajectories(
        observations=seen,
        actions=actions.numpy(),
        rewards=rng.normal(size=episodes),
        log_prob_behaviour=distribution.log_prob(actions).detach().double().numpy(),
        lengths=nothing + 1,
        final_observations=seen,
        terminated=nothing == 0,
        truncated=nothing == 1,
        policy_version=nothing + version,
        episode=np.arange(episodes) + version * episodes,
        seed=nothing,
        time_start=nothing,
    )


def test_a_policy_that_learnt_chance_by_heart_is_no_start():
    """Trained on the first half of the log as it is usual: it takes the actions that were lucky."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = Network()
    old = chance(first, 0, seed=0)
    trained = deepcopy(first)
    optimiser = torch.optim.Adam(trained.parameters(), lr=1e-2)
    seen, actions, rewards = map(torch.tensor, (old.observations, old.actions, old.rewards))
    for _ in range(100):
        ratio = (trained(seen).log_prob(actions) - np.log(0.5)).exp()
        loss = -torch.min(ratio * rewards, ratio.clamp(0.8, 1.2) * rewards).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    log = rw.Trajectories.concatenate([old, chance(trained, 1, seed=1)])
    config = LearnConfig(epochs=20)
    with pytest.raises(ValueError, match="begin with version 0"):
        learn(log, trained, config=config)
    assert not learn(log, first, config=config).shown
    unnumbered = replace(log, policy_version=np.zeros(len(log), dtype=np.int64))
    fooled = learn(unnumbered, trained, config=config)
    assert fooled.shown, "what the refusal protects from"
    assert UNSEEN in fooled.notes[0]


# ------------------------------------------------------------------ numbers that are none


class Broken(Network):
    """Gives NaN where a distribution checks what it is given."""

    def forward(self, observations):
        return Categorical(logits=self.layers(observations.float()) * torch.nan)


def test_a_policy_that_gives_nan_is_told_so():
    with torch.random.fork_rng(devices=[]):
        policy = Broken()
    with pytest.raises(
        ValueError, match="gives its distribution NaN, or numbers that cannot be"
    ) as error:
        learn(chance(Network(), 0, seed=0), policy, config=QUICK)
    assert "Expected parameter logits" in str(error.value)
    assert "\n" not in str(error.value)
