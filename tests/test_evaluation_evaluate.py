"""`rw.evaluate`: from a log in memory or on disk to estimates, and what it refuses."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Categorical

import reweigh as rw
from reweigh.data.schema import MISSING
from reweigh.evaluation.intervals import bootstrap, normal
from reweigh.evaluation.methods import (
    BY_PARTS,
    ON_THE_WHOLE,
    direct_method,
    tabular_marginal,
    with_critic,
)

SCHEMA = rw.TrajectorySchema(
    "Walk-v0", rw.ArraySpec("int64", (), (4,)), rw.ArraySpec("int64", (), (2,)), True
)


class Leaning(nn.Module):
    """Takes action 1 with a probability that depends on the state alone."""

    def __init__(self, probability: list[float]):
        super().__init__()
        self.probability = torch.tensor(probability)

    def forward(self, observations):
        p = self.probability[observations]
        return Categorical(probs=torch.stack([1 - p, p], -1))


BEHAVIOUR, TARGET = Leaning([0.5, 0.4, 0.6, 0.5]), Leaning([0.6, 0.5, 0.7, 0.6])


def walk(episodes: int, seed: int = 0, horizon: int = 6) -> rw.Trajectories:
    """A walk over four states that action 1 takes up, and that ends at the top."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(episodes):
        state, steps = 0, []
        for _ in range(horizon):
            p = float(BEHAVIOUR.probability[state])
            action = int(rng.random() < p)
            reward = float(action) + rng.normal(0, 0.1)
            steps.append((state, action, reward, np.log(p if action else 1 - p)))
            state = min(state + 1, 3) if action else max(state - 1, 0)
            if state == 3:
                break
        rows.append((steps, state))
    lengths = np.array([len(steps) for steps, _ in rows])
    flat = [step for steps, _ in rows for step in steps]
    final = np.array([state for _, state in rows])
    zeros = np.zeros(episodes, dtype=np.int64)
    return rw.Trajectories(
        observations=np.array([s for s, *_ in flat]),
        actions=np.array([a for _, a, *_ in flat]),
        rewards=np.array([r for *_, r, _ in flat]),
        log_prob_behaviour=np.array([p for *_, p in flat]),
        lengths=lengths,
        final_observations=final,
        terminated=final == 3,
        truncated=final != 3,
        policy_version=zeros,
        episode=np.arange(episodes),
        seed=zeros,
        time_start=zeros,
    )


@pytest.fixture
def log(tmp_path):
    log = rw.TrajectoryLog.create(tmp_path / "log", SCHEMA)
    t = walk(60)
    log.append(t.select(np.arange(40)))
    log.append(t.select(np.arange(40, 60)))
    return log


def test_a_log_on_disk_in_memory_and_in_parts_are_one(log):
    held = rw.evaluate(log, TARGET, discount=0.9, interval=normal)
    loose = rw.evaluate(log.read(), TARGET, discount=0.9, interval=normal)
    assert held.estimates == loose.estimates
    assert (held.episodes, held.steps) == (60, log.summary().steps)
    assert (held.environment, loose.environment) == ("Walk-v0", None)
    assert held.interval == "normal"
    assert not set(held.left_out) - {"kernel_marginal", "truncated_importance_sampling"}
    parts = rw.evaluate(log, TARGET, discount=0.9, interval=normal, held=120)
    assert {*parts.estimates, *parts.left_out} == set(BY_PARTS)
    for name, one in parts.estimates.items():
        assert one.value == pytest.approx(held[name].value, rel=1e-10)
        assert one.standard_error == pytest.approx(held[name].standard_error, rel=1e-10)
    assert parts.ess_by_time == pytest.approx(held.ess_by_time)
    assert parts.weight_histogram == held.weight_histogram
    assert sum(parts.weight_histogram) == 60
    asked = rw.evaluate(log, TARGET, discount=0.9, methods={"DM": direct_method}, held=0)
    assert asked["DM"].value == pytest.approx(held["direct_method"].value)


def test_the_behaviour_evaluated_is_its_mean_return(log):
    """The check that other libraries fail: target and behaviour the same."""
    found = rw.evaluate(log, BEHAVIOUR)
    mean = found["behaviour"].value
    weighing = {*BY_PARTS, "pareto_smoothed", "doubly_robust", "weighted_doubly_robust"}
    for name in weighing & {*found.estimates}:
        away = abs(found[name].value - mean)
        assert away <= 3 * found["behaviour"].standard_error, name
    assert found["weighted_per_decision"].value == pytest.approx(mean, rel=1e-6)
    assert found["direct_method"].warnings


def test_every_estimator_is_near_the_truth(log):
    many = walk(3000, seed=5)
    truth = _value(TARGET)
    bounded = rw.recipes.truncated_importance_sampling.bind(lowest_return=-1.0)
    methods = {**BY_PARTS, **ON_THE_WHOLE, bounded.name: bounded}
    found = rw.evaluate(many, TARGET, methods=methods)
    assert not found.left_out
    for name, one in found.estimates.items():
        if name != "behaviour":
            assert abs(one.value - truth) < 4 * one.standard_error + 0.005, (name, one, truth)
            assert one.standard_error < 0.1, name


def _value(policy: Leaning, horizon: int = 6) -> float:
    """The expected return by dynamic programming."""
    values = np.zeros(4)
    for _ in range(horizon):
        p = policy.probability.double().numpy()
        up = np.array([values[1], values[2], 0.0, 0.0])
        down = np.array([values[0], values[0], values[1], 0.0])
        values = p * (1 + up) + (1 - p) * down
    return float(values[0])


def test_the_interval_and_its_level_are_the_callers(log):
    bounded = rw.recipes.truncated_importance_sampling.bind(maximum=2.0, lowest_return=-2.0)
    methods = {"mine": bounded, "PDWIS": rw.recipes.weighted_per_decision}
    wide = rw.evaluate(log, TARGET, methods=methods, interval=partial(bootstrap, seed=3))
    narrow = rw.evaluate(log, TARGET, methods=methods, level=0.5)
    assert wide.interval == "bootstrap"
    assert narrow.interval == "student_t"
    for name in methods:
        assert wide[name].low < narrow[name].low < narrow[name].high < wide[name].high
    assert str(narrow["PDWIS"]).startswith("PDWIS: ")


def test_what_does_not_apply_is_said_not_raised_unless_nothing_is_left(log):
    continuous = replace(log.read(), observations=log.read().observations.astype(np.float32))
    continuous = replace(
        continuous, final_observations=continuous.final_observations.astype(np.float32)
    )

    class Rounded(Leaning):
        def forward(self, observations):
            return super().forward(observations.long())

    found = rw.evaluate(continuous, Rounded([0.5] * 4))
    assert "tabular_marginal" in found.left_out
    with pytest.raises(ValueError, match="tabular_marginal does not apply: "):
        _ = found["tabular_marginal"]
    with pytest.raises(ValueError, match="no estimator 'nothing' was asked, only behaviour, "):
        _ = found["nothing"]
    only = {"tabular_marginal": tabular_marginal}
    with pytest.raises(ValueError, match="tabular_marginal: "):
        rw.evaluate(continuous, Rounded([0.5] * 4), methods=only)
    with pytest.raises(ValueError, match="none was given"):
        rw.evaluate(log, TARGET, methods={})


def test_without_the_behaviours_log_probabilities_only_models_and_means_are_left(tmp_path):
    log = rw.TrajectoryLog.create(tmp_path / "log", replace(SCHEMA, behaviour=MISSING))
    t = walk(30)
    log.append(replace(t, log_prob_behaviour=np.full(t.steps, np.nan)))
    found = rw.evaluate(log, TARGET)
    assert set(found.estimates) == {"behaviour", "direct_method"}
    assert "--estimate-behaviour" in found.left_out["per_decision"]
    assert found.behaviour == MISSING
    assert found.ess_by_time == found.weight_histogram == ()


def test_what_is_refused_altogether(log, tmp_path):
    empty = rw.TrajectoryLog.create(tmp_path / "empty", SCHEMA)
    with pytest.raises(ValueError, match="is empty"):
        rw.evaluate(empty, TARGET)
    with pytest.raises(ValueError, match="discount must lie"):
        rw.evaluate(log, TARGET, discount=2.0)
    t = log.read()
    ended = t.terminated.copy()
    t = replace(t, terminated=np.zeros(60, dtype=bool), truncated=np.zeros(60, dtype=bool))
    with pytest.raises(ValueError, match=r"no whole episode: all 60 lack.*--unfinished"):
        rw.evaluate(t, TARGET)
    t = replace(t, terminated=ended, truncated=~ended)
    broken = t.rewards.copy()
    broken[4] = np.nan
    with pytest.raises(ValueError, match=r"reward of episode \d+, step \d+, is nan"):
        rw.evaluate(replace(t, rewards=broken), TARGET)
    with pytest.raises(ValueError, match=r"log_prob_behaviour: 0\.5 in episode 0, step 0"):
        rw.evaluate(replace(t, log_prob_behaviour=np.full(t.steps, 0.5)), TARGET)
    with pytest.raises(ValueError, match="rewards: 3 entries for"):
        rw.evaluate(replace(t, rewards=t.rewards[:3]), TARGET)
    more = Leaning([0.5] * 4)
    more.forward = lambda observations: Categorical(torch.ones(len(observations), 3))  # type: ignore[method-assign]
    with pytest.raises(
        ValueError, match=r"policy has 3 actions, and the log's are \[2\].*--choices"
    ):
        rw.evaluate(log, more)
    three = Leaning([0.5] * 4)
    three.forward = lambda observations: Categorical(torch.ones(len(observations), 1))  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="1 actions, but the log holds action 1 in episode"):
        rw.evaluate(log.read(), three)


@pytest.fixture
def stopped(tmp_path):
    """A log of 60 episodes, of which the last of each half has no end, as a stopped run leaves."""
    t = walk(60)
    unfinished = np.isin(t.episode, [29, 59])
    t = replace(t, terminated=t.terminated & ~unfinished, truncated=t.truncated & ~unfinished)
    log = rw.TrajectoryLog.create(tmp_path / "stopped", SCHEMA)
    log.append(t.select(np.arange(30)))
    log.append(t.select(np.arange(30, 60)))
    return log, t.select(~unfinished), int(t.lengths[unfinished].sum())


@pytest.mark.parametrize("held", [2_000_000, 120])
def test_episodes_without_an_end_are_left_out_and_counted(stopped, held):
    log, whole, steps = stopped
    methods = {"PDIS": rw.recipes.per_decision, "PDWIS": rw.recipes.weighted_per_decision}
    found = rw.evaluate(log, TARGET, methods=methods, held=held)
    expected = rw.evaluate(whole, TARGET, methods=methods)
    assert found.unfinished == (2, steps)
    assert expected.unfinished == (0, 0)
    assert (found.episodes, found.steps) == (58, whole.steps)
    for name in methods:
        assert found[name].value == pytest.approx(expected[name].value, rel=1e-12)
        assert found[name].low == pytest.approx(expected[name].low, rel=1e-12)


def test_a_method_is_a_recipe_or_a_function(log):
    """What a value recipe estimates does not depend on who calls it."""
    sample = rw.sample_of(log.read(), TARGET, discount=0.9)
    doubled = rw.recipes.value(rw.recipes.BIASED)(lambda s: rw.recipes.per_decision.terms(s))
    found = rw.evaluate(
        log,
        TARGET,
        discount=0.9,
        methods={
            "recipe": rw.recipes.per_decision,
            "mine": doubled,
            "function": lambda logged: rw.recipes.per_decision.terms(logged.sample),
            "DR": with_critic(rw.recipes.doubly_robust, folds=2),
        },
    )
    expected = float(rw.recipes.per_decision.estimate(sample))
    for name in ("recipe", "mine", "function"):
        assert found[name].value == pytest.approx(expected, rel=1e-12)
    assert found["DR"].value != pytest.approx(expected)
    with pytest.raises(ValueError, match=r"balance_heuristic needs log_prob_sources.*with_sources"):
        rw.evaluate(log, TARGET, methods={"BH": rw.recipes.balance_heuristic})


def test_the_methods_are_the_value_recipes_and_the_models():
    models = {"direct_method", "tabular_marginal", "linear_marginal", "kernel_marginal"}
    assert {*BY_PARTS, *ON_THE_WHOLE} == {*rw.recipes.VALUES, *models} - {"balance_heuristic"}
    assert all(recipe.by_parts and not recipe.inputs for recipe in BY_PARTS.values())


def test_a_sample_is_what_recipes_read(log):
    sample = rw.sample_of(log.read(), TARGET)
    batch = rw.Batch.of(log.read())
    again = rw.sample_of(batch, TARGET)
    assert torch.equal(sample.log_prob_target, again.log_prob_target)
    expected = TARGET(batch.observations).log_prob(batch.actions).double()
    torch.testing.assert_close(sample.log_prob_target, expected)
    assert torch.equal(sample.rewards, batch.rewards)
    missing = replace(batch, log_prob_behaviour=torch.full_like(batch.rewards, torch.nan))
    assert rw.sample_of(missing, TARGET).log_prob_behaviour is None
