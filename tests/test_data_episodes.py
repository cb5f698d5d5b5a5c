"""Whole episodes of a log or of memory: which there are, and what each is used for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from data_samples import CARTPOLE, assert_same_bits, random_trajectories

from reweigh.data import Batch, Trajectories, TrajectoryLog
from reweigh.data.episodes import (
    DRAWS,
    FOLDS,
    SHARES,
    Chosen,
    Folds,
    InMemory,
    Shares,
    Unfinished,
    hashed,
    is_whole,
    leave_out_unfinished,
    require_schema,
    uniform,
)

NUMBERS = np.arange(10_000)
FOLDS_OF_12 = [4, 4, 2, 1, 0, 3, 0, 0, 1, 4, 4, 2]
PARTS_OF_12 = [1, 0, 2, 2, 1, 0, 0, 2, 0, 2, 0, 2]
DRAWS_OF_3 = [0.8481385119988656, 0.173527056849204, 0.3336805102042859]


def broken():
    """Episode 0 is whole in two fragments; 1 lacks its start, 2 its middle, 3 its end."""
    made = random_trajectories(CARTPOLE, [3, 2, 4, 1, 2, 5, 1], np.random.default_rng(0))
    return replace(
        made,
        episode=np.array([0, 0, 1, 2, 2, 3, 4]),
        time_start=np.array([0, 3, 2, 0, 3, 0, 0]),
        terminated=np.array([False, True, True, False, True, False, False]),
        truncated=np.array([False] * 6 + [True]),
    )


def test_an_episode_is_whole_from_time_0_to_an_end_without_a_gap():
    assert is_whole(broken()).tolist() == [True, True, False, False, False, False, True]


def test_what_is_not_whole_is_left_out_and_counted():
    made = broken()
    whole, unfinished = leave_out_unfinished(made)
    assert unfinished == Unfinished(episodes=3, steps=12)
    assert_same_bits(whole, made.select([0, 1, 6]))
    again, unfinished = leave_out_unfinished(whole)
    assert again is whole and unfinished == (0, 0)
    empty, unfinished = leave_out_unfinished(made.select([2]))
    assert len(empty) == 0 and unfinished == (1, 4)


def test_the_order_of_the_fragments_is_kept_and_has_no_say():
    made = broken()
    order = np.array([6, 1, 3, 5, 0, 2, 4])
    whole, unfinished = leave_out_unfinished(made.select(order))
    assert unfinished == (3, 12)
    assert_same_bits(whole, made.select([6, 1, 0]))


@pytest.mark.parametrize("max_steps", [1, 5, 8, 100])
def test_pieces_of_a_log_have_the_counts_of_the_whole(tmp_path, max_steps):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    made = broken()
    log.append(made.select([0, 2, 4, 6]))
    log.append(made.select([1, 3, 5]))
    counts = [leave_out_unfinished(p)[1] for p in log.stream_episodes(max_steps=max_steps)]
    assert tuple(map(sum, zip(*counts, strict=True))) == (3, 12)
    pieces = list(Chosen(log, is_whole).stream_episodes(max_steps=max_steps))
    assert all(len(piece) for piece in pieces)
    assert_same_bits(Trajectories.concatenate(pieces), made.select([0, 1, 6]))


def test_trajectories_in_memory_come_as_a_log_gives_them(tmp_path):
    made = random_trajectories(CARTPOLE, [3, 2, 4, 1], np.random.default_rng(0))
    made = made.select([2, 0, 3, 1])
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    log.append(made)
    pieces = list(InMemory(made, CARTPOLE).stream_episodes(max_steps=5))
    for mine, logged in zip(pieces, log.stream_episodes(max_steps=5), strict=True):
        assert_same_bits(mine, logged)
    assert [piece.steps for piece in pieces] == [5, 5]


def test_a_schema_is_checked_and_asked_for():
    made = random_trajectories(CARTPOLE, [3], np.random.default_rng(0))
    made.rewards[1] = np.nan
    assert InMemory(made).schema is None
    with pytest.raises(ValueError, match="rewards: nan in episode 0, step 1"):
        InMemory(made, CARTPOLE)
    with pytest.raises(ValueError, match="do not say what actions there are"):
        require_schema(Chosen(InMemory(made), is_whole))
    made.rewards[1] = 0.0
    assert require_schema(Chosen(InMemory(made, CARTPOLE), is_whole)) == CARTPOLE


# What an episode is used for


def test_the_hash_is_that_of_splitmix64():
    """Its finaliser, in Python's integers; seed and stream say where its sequence begins."""
    key = int(np.random.SeedSequence([5, 2]).generate_state(1, np.uint64)[0])
    mask = (1 << 64) - 1
    z = (7 + key) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    z ^= z >> 31
    assert hashed(np.array([7]), seed=5, stream=2).tolist() == [z]
    assert uniform(np.array([7]), seed=5, stream=2).tolist() == [(z >> 11) / 2**53]


def test_folds_draws_and_shares_are_what_they_have_always_been():
    """Another number would put other episodes into the test of a log that was divided before."""
    folds, shares = Folds(5, seed=3), Shares(0.2, 0.3, seed=3)
    assert folds.of(NUMBERS[:12]).tolist() == FOLDS_OF_12
    assert shares.part_of(NUMBERS[:12]).tolist() == PARTS_OF_12
    np.testing.assert_allclose(folds.draw(NUMBERS[:3]), DRAWS_OF_3, rtol=1e-15)


def test_folds_and_shares_are_as_large_as_they_should_be():
    sizes = np.bincount(Folds(4, seed=0).of(NUMBERS)) / len(NUMBERS)
    np.testing.assert_allclose(sizes, 0.25, atol=0.02)
    parts = np.bincount(Shares(0.1, 0.3, seed=0).part_of(NUMBERS)) / len(NUMBERS)
    np.testing.assert_allclose(parts, [0.6, 0.1, 0.3], atol=0.02)


def test_streams_and_seeds_are_independent():
    draws = [
        uniform(NUMBERS, seed=seed, stream=stream)
        for seed in (0, 1)
        for stream in (FOLDS, DRAWS, SHARES)
    ]
    apart = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(apart).max() < 0.05


def test_the_steps_of_an_episode_are_in_its_fold():
    made = random_trajectories(CARTPOLE, [3, 2, 4], np.random.default_rng(0))
    folds = Folds(2, seed=1)
    by_hand = [f for f, n in zip(folds.of(made.episode), [3, 2, 4], strict=True) for _ in range(n)]
    assert folds.of_steps(made).tolist() == by_hand


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (2, -1)])
def test_folds_that_cannot_be_are_refused(count, seed):
    with pytest.raises(ValueError, match="must be an integer of at least"):
        Folds(count, seed)


# Batches


def test_chosen_episodes_of_a_batch_are_those_and_no_others():
    made = random_trajectories(CARTPOLE, [3, 2, 4], np.random.default_rng(0))
    made = replace(made, time_start=np.array([0, 5, 0]))
    batch = Batch.of(made)
    chosen = batch.select(torch.tensor([2, 0, 2, 1]))
    step = [5, 6, 7, 8, 0, 1, 2, 5, 6, 7, 8, 3, 4]
    for name in ("observations", "actions", "rewards", "log_prob_behaviour", "policy_version"):
        assert torch.equal(getattr(chosen, name), getattr(batch, name)[step])
    for name in ("final_observations", "terminated", "truncated", "episode"):
        assert torch.equal(getattr(chosen, name), getattr(batch, name)[[2, 0, 2, 1]])
    assert chosen.segments.lengths.tolist() == [4, 3, 4, 2]
    assert chosen.segments.time_start.tolist() == [0, 0, 0, 5]
