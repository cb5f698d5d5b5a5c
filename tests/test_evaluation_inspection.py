"""What is in a log: every number of an inspection, of a log small enough to count by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import reweigh as rw
from reweigh.acting.tabular import TabularPolicy
from reweigh.data.schema import MISSING
from reweigh.evaluation.inspection import Spread, inspection

SCHEMA = rw.TrajectorySchema(
    "Small-v0", rw.ArraySpec("int64", (), (2,)), rw.ArraySpec("int64", (), (2,)), True
)
# Policy 3 began episode 0 and policy 7 ended it; 1 and 2 are whole; 3 has no end, 4 no start.
LENGTHS = [2, 1, 1, 4, 3, 2]
ACTIONS = [1, 1, 0, 1, 0, 0, 1, 1, 1, 1, 1, 0, 0]


def trajectories():
    steps, last = sum(LENGTHS), np.array([0, 1, 1, 1, 0, 1], dtype=bool)
    terminated = np.array([0, 1, 0, 1, 0, 1], dtype=bool)
    return rw.Trajectories(
        observations=np.zeros(steps, dtype=np.int64),
        actions=np.array(ACTIONS),
        rewards=np.arange(steps, dtype=np.float64),
        log_prob_behaviour=np.full(steps, math.log(0.5)),
        lengths=np.array(LENGTHS),
        final_observations=np.zeros(len(LENGTHS), dtype=np.int64),
        terminated=terminated,
        truncated=last & ~terminated,
        policy_version=np.array([3, 7, 7, 3, 7, 3]),
        episode=np.array([0, 0, 1, 2, 3, 4]),
        seed=np.zeros(len(LENGTHS), dtype=np.int64),
        time_start=np.array([0, 2, 0, 0, 0, 5]),
    )


@pytest.fixture
def log(tmp_path):
    made = rw.TrajectoryLog.create(tmp_path / "log", SCHEMA)
    made.append(trajectories())
    return made


@pytest.fixture
def policy():
    """Takes action 1 three times in four: the ratio of action 1 is 1.5, that of action 0 is 0.5."""
    made = TabularPolicy([2], (), [2])
    with torch.no_grad():
        made.logits[:, 1] = math.log(3)
    return made


def test_what_is_in_a_log(log):
    found = inspection(log)
    assert found.schema == SCHEMA
    assert (found.steps, found.episodes, found.fragments) == (13, 5, 6)
    assert found.steps_by_version == {3: 8, 7: 5}
    assert (found.terminated, found.truncated, found.unfinished) == (3, 1, 1)
    assert (found.unfinished_steps, found.without_start, found.whole) == (3, 1, 3)
    # Returns 0+1+2, 3 and 4+5+6+7 of 3, 1 and 4 steps.
    assert found.returns == Spread(
        28 / 3, pytest.approx(np.std([3, 3, 22], ddof=1)), 3, 3, 3, 12.5, 22
    )
    assert found.lengths == Spread(8 / 3, pytest.approx(np.std([3, 1, 4], ddof=1)), 1, 2, 3, 3.5, 4)
    assert found.age is None


@pytest.mark.parametrize("steps_at_once", [1, 5, 1000])
def test_how_old_a_log_is_to_a_policy(log, policy, steps_at_once):
    age = inspection(log, policy, steps_at_once=steps_at_once).age
    ratios = np.where(np.array(ACTIONS) == 1, 1.5, 0.5)
    version = np.repeat([3, 7, 7, 3, 7, 3], LENGTHS)

    def kish(weights):
        return pytest.approx(weights.sum() ** 2 / (weights**2).sum())

    assert age.steps.sample_size == 13
    assert age.steps.effective_sample_size == kish(ratios)
    assert age.steps.mean == pytest.approx(ratios.mean())
    assert list(age.steps_by_version) == [3, 7]
    for v, reading in age.steps_by_version.items():
        assert reading.sample_size == (version == v).sum()
        assert reading.effective_sample_size == kish(ratios[version == v])
        assert reading.maximum == pytest.approx(1.5)
    # Of the three whole episodes: 1.5 1.5 0.5; 1.5; 0.5 0.5 1.5 1.5.
    assert age.episodes.sample_size == 3
    assert age.episodes.effective_sample_size == kish(np.array([1.125, 1.5, 0.5625]))


def test_parts_give_the_same_inspection(log, policy):
    assert inspection(log, steps_at_once=1) == inspection(log)


def test_one_whole_episode_has_no_deviation():
    assert math.isnan(Spread.of(np.array([3.0])).standard_deviation)


def test_a_log_without_log_probabilities_is_inspected_but_not_weighed(tmp_path, policy):
    made = rw.TrajectoryLog.create(tmp_path / "log", replace(SCHEMA, behaviour=MISSING))
    made.append(replace(trajectories(), log_prob_behaviour=np.full(13, np.nan)))
    assert inspection(made).steps == 13
    with pytest.raises(ValueError, match="--estimate-behaviour"):
        inspection(made, policy)


def test_an_empty_log(tmp_path, policy):
    made = rw.TrajectoryLog.create(tmp_path / "log", SCHEMA)
    found = inspection(made)
    assert (found.steps, found.episodes, found.returns, found.lengths) == (0, 0, None, None)
    with pytest.raises(ValueError, match="is empty"):
        inspection(made, policy)


def test_a_policy_of_another_space_is_refused(log):
    with pytest.raises(ValueError, match="another environment"):
        inspection(log, TabularPolicy([2], (), [3]))
