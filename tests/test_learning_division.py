"""Which episodes learn, choose and test, and how they are given."""

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from problems import ending

import reweigh as rw
from reweigh.data.batch import Batch
from reweigh.data.episodes import Folds, InMemory, Shares
from reweigh.evaluation.logged import Logged
from reweigh.learning.config import LearnConfig
from reweigh.learning.division import HELD, Division, minibatches
from reweigh.learning.learn import learning

PROBLEM = ending(horizon=6)
LOG = PROBLEM.sample(300, seed=0)
SHARES = Shares(validation=0.2, test=0.4, seed=0)


def episodes(part):
    return np.concatenate([batch.episode.numpy() for batch in part.batches()])


def divided(log=LOG, shares=SHARES):
    found = Division.of(InMemory(log), shares, steps=log.steps)
    return [episodes(part) for part in (found.training, found.validation, found.test)]


def test_every_episode_is_in_one_part():
    together = np.concatenate(divided())
    assert sorted(together) == list(range(300))


def test_the_parts_have_their_shares():
    numbers = np.bincount(SHARES.part_of(np.arange(100_000))) / 100_000
    np.testing.assert_allclose(numbers, [0.4, 0.2, 0.4], atol=0.005)


def test_an_episode_stays_in_its_part_however_the_log_grows_or_is_ordered():
    shuffled = LOG.select(np.random.default_rng(0).permutation(300)[:200])
    for some, all_of_them in zip(divided(shuffled), divided(), strict=True):
        assert set(some) <= set(all_of_them)


def test_what_an_episode_holds_has_no_say():
    other = PROBLEM.sample(300, seed=1)
    for mine, theirs in zip(divided(other), divided(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_another_seed_divides_otherwise_and_no_seed_like_the_folds_of_a_behaviour():
    numbers = np.arange(10_000)
    mine = SHARES.part_of(numbers)
    assert (mine != Shares(0.2, 0.4, seed=1).part_of(numbers)).mean() > 0.5
    fold = Folds(2, 0).of(numbers)
    assert abs(np.corrcoef(mine, fold)[0, 1]) < 0.05


def test_picked_episodes_are_those_and_nothing_else():
    batch = Batch.of(LOG)
    which = torch.tensor([7, 3, 250, 3])
    policy = PROBLEM.policy()
    expected = Logged.of(batch, policy, discount=0.9).select(which).sample
    found = rw.sample_of(batch.select(which), policy, discount=0.9)
    for name in ("rewards", "log_prob_target", "log_prob_behaviour", "returns"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    assert batch.select(which).episode.tolist() == which.tolist()
    assert (
        batch.select(which).final_observations.tolist() == batch.final_observations[which].tolist()
    )


@pytest.mark.parametrize(("count", "made"), [(4, 4), (1, 1), (1000, 300)])
def test_minibatches_hold_every_episode_once_in_random_order(count, made):
    found = list(minibatches(Batch.of(LOG), count, torch.Generator().manual_seed(0)))
    assert len(found) == made
    order = torch.cat([part.episode for part in found]).tolist()
    assert sorted(order) == list(range(300)) != order


@pytest.fixture
def stored(tmp_path):
    """The same log on disk, in several commits whose episodes lie across each other."""
    log = rw.TrajectoryLog.create(tmp_path / "log", PROBLEM.schema)
    for first in range(3):
        log.append(LOG.select(np.arange(first, 300, 3)))
    return log


def outcome(log, meanwhile=lambda: None, held=HELD):
    config = LearnConfig(epochs=4, hidden=(), discount=0.9, patience=4)
    policy = PROBLEM.behaviour_policy()
    steps = learning(log, policy, config=config, at_once=400, held=held)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            learnt = done.value
            break
        meanwhile()
    timeless = [(p.objective, p.ess, p.kl, p.improvement, p.best) for p in learnt.progress]
    return timeless, learnt.candidate and learnt.candidate.state_dict()["logits"].tolist()


def test_a_log_that_is_streamed_gives_the_numbers_of_one_that_is_held(stored):
    held = outcome(stored)
    assert outcome(LOG) == held
    assert outcome(stored, held=0) == held
    assert outcome(str(stored.path), held=0) == held


@pytest.mark.parametrize("held", [0, HELD])
def test_what_is_appended_meanwhile_is_not_read(held, stored):
    expected = outcome(LOG)
    more = PROBLEM.sample(200, seed=1)
    more = replace(more, episode=more.episode + 300)
    writer = rw.TrajectoryLog.open(stored.path)

    def append():
        nonlocal more
        if len(more):
            writer.append(more)
        more = more.select(slice(0))

    assert outcome(stored, meanwhile=append, held=held) == expected
    assert stored.summary().episodes == 500
    assert stored.at_present().summary().episodes == 500


class Alive:
    """Counts the steps of the batches that are in memory at the same time."""

    def __init__(self, monkeypatch):
        self.batches = weakref.WeakValueDictionary()
        self.most = self.read = 0
        original = Batch.of
        monkeypatch.setattr(Batch, "of", lambda t: self.add(original(t)))

    def add(self, batch):
        self.read += 1
        self.batches[self.read] = batch
        self.most = max(self.most, sum(len(b) for b in self.batches.values()))
        return batch


@pytest.mark.parametrize("count", [200, 800])
def test_memory_does_not_grow_with_a_log_that_is_streamed(count, monkeypatch):
    alive = Alive(monkeypatch)
    log = PROBLEM.sample(count, seed=2)
    config = LearnConfig(epochs=1, hidden=(), estimator="weighted_per_decision")
    policy = PROBLEM.behaviour_policy()
    for _ in learning(log, policy, config=config, at_once=300, held=0):
        pass
    assert alive.read > 5 * log.steps / 300
    assert alive.most <= 2 * 300
