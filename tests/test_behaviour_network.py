"""Behaviours that networks learn: as close as the log allows, in any unit, bit for bit again."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from behaviour_samples import FLOATS, NUMBER, Reread, gaussian, held, softmax

from reweigh.acting.policy import build
from reweigh.behaviour import counts_where_possible, estimate_behaviour, fit_network
from reweigh.behaviour.fitted import Material
from reweigh.behaviour.networks import _division, _Fit
from reweigh.data import ArraySpec
from reweigh.data.episodes import Folds, InMemory

SMALL = partial(fit_network, hidden=(16,), learning_rates=(1e-2, 1e-3), patience=3)
QUICK = partial(SMALL, learning_rates=(1e-2,), most_passes=2)


def divergence(log, found):
    """Mean of log b - log b̂ over the logged actions, each by the model without its episode."""
    return (log.trajectories.log_prob_behaviour - found.log_prob_behaviour(log.trajectories)).mean()


def same(left, right):
    a, b = left.state_dict(), right.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-4, 1e6), (1e5, -1e4)])
def test_a_network_finds_a_softmax_policy_in_any_unit(scale, offset):
    log = softmax(600, scale=scale, offset=offset)
    found = estimate_behaviour(log, model=SMALL, folds=2)
    # A model with d = 99 parameters at the maximum of its likelihood is d / 2n = 0.03 away.
    assert 0 < divergence(log, found) < 0.03
    assert found.calibration.log_likelihood > found.calibration.marginal_log_likelihood + 0.15
    assert found.description == "estimated by a network of 16, 2-fold cross-fitted"
    again = build(found.policy_description)
    again.load_state_dict(found.policy.state_dict())
    seen = torch.from_numpy(log.trajectories.observations[:9])
    assert torch.equal(again(seen).logits, found.policy(seen).logits)


@pytest.mark.parametrize("unit", [1e-3, 2e4])
def test_a_network_finds_a_normal_policy_in_any_unit(unit):
    log = gaussian(600, unit=unit)
    found = estimate_behaviour(log, model=SMALL, folds=2)
    assert 0 < divergence(log, found) < 0.05
    seen = log.trajectories.observations
    with torch.no_grad():
        normal = found.policy(torch.from_numpy(seen)).base_dist
    np.testing.assert_allclose(normal.scale / unit, 0.5, rtol=0.05)
    away = normal.loc.numpy() / unit - seen[:, ::-1]
    assert np.sqrt((away**2).mean()) < 0.12


def test_a_network_finds_several_choices_at_once():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 2))
    up = 1 / (1 + np.exp(-2 * x))
    done = (rng.random((3000, 2)) < up).astype(int)
    done[:, 1] += 1  # of three choices the first is never taken
    action = ArraySpec("int64", (2,), (2, 3))
    logs = np.log(np.where(done - [0, 1], up, 1 - up)).sum(1)
    log = held(x, done, 5, logs, observation=FLOATS, action=action)
    found = estimate_behaviour(log, model=SMALL, folds=2)
    assert 0 < divergence(log, found) < 0.05
    assert found.calibration.problems == ()


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_random_state():
    log = softmax(40)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = estimate_behaviour(log, model=QUICK, seed=4)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(2)
    second = estimate_behaviour(log, model=QUICK, seed=4)
    other = estimate_behaviour(log, model=QUICK, seed=5)
    for one, two in zip(first.fitted.policies, second.fitted.policies, strict=True):
        assert same(one, two)
    assert not same(first.policy, other.policy)
    assert not same(*first.fitted.policies[:2])


@pytest.mark.parametrize("make", [softmax, gaussian])
def test_what_an_episode_does_changes_nothing_of_its_own(make):
    log = make(40)
    t = log.trajectories
    found = estimate_behaviour(log, model=QUICK)
    fold = found.folds.of_steps(t)
    actions = t.actions.copy()
    actions[fold == 2] = 1
    after = estimate_behaviour(InMemory(replace(t, actions=actions), log.schema), model=QUICK)
    assert same(found.fitted.policies[2], after.fitted.policies[2])
    assert not any(
        same(found.fitted.policies[k], after.fitted.policies[k]) for k in (0, 1, 3, 4, 5)
    )


def test_episodes_that_are_held_out_judge_and_do_not_teach(monkeypatch):
    log = softmax(60)
    taught, judged = {}, {}

    def watch(name, seen):
        original = getattr(_Fit, name)

        def wrapped(fit, steps):
            seen.setdefault(fit.without, set()).update(map(tuple, steps.observations.tolist()))
            original(fit, steps)

        monkeypatch.setattr(_Fit, name, wrapped)

    watch("learn", taught)
    watch("judge", judged)
    folds = estimate_behaviour(log, model=QUICK, folds=3).folds
    fold = folds.of_steps(log.trajectories)
    steps = np.array([tuple(x) for x in log.trajectories.observations])
    for k in range(4):
        assert not taught[k] & judged[k]
        assert taught[k] | judged[k] == set(map(tuple, steps[fold != k].tolist()))
        assert 0 < len(judged[k]) <= 0.2 * len(taught[k])


def test_of_a_long_log_a_share_is_learnt_from(monkeypatch):
    sizes = []
    original = _Fit.learn
    monkeypatch.setattr(
        _Fit, "learn", lambda fit, steps: (sizes.append(len(steps)), original(fit, steps))
    )
    estimate_behaviour(softmax(400), model=partial(QUICK, most_passes=1, most_steps=500), folds=2)
    assert 350 < sizes[-1] < 550, "the last network sees all folds"


def test_the_best_pass_is_kept_and_then_a_smaller_rate_tried(monkeypatch):
    scores, rates = [], []
    original = _Fit.judge

    def judge(fit, steps):
        rates.append(fit.optimiser.param_groups[0]["lr"])
        original(fit, steps)
        if fit.without == 2:
            scores.append((fit.best_score, fit.passes, fit.since_best, list(fit.rates)))

    monkeypatch.setattr(_Fit, "judge", judge)
    log = softmax(30)
    found = estimate_behaviour(log, model=SMALL, folds=2)
    best = [score for score, *_ in scores]
    assert best == sorted(best) and len(set(best)) > 1
    assert set(rates) == {1e-2, 1e-3} and scores[-1][3] == []
    below, _ = _division(Material.of(log, Folds(2, 0)), 10**6)
    held_out = log.trajectories.select(found.folds.draw(log.trajectories.episode) < below)
    seen, done = map(torch.from_numpy, (held_out.observations, held_out.actions))
    score = found.policy(seen).log_prob(done).mean().detach()
    assert float(score) == pytest.approx(best[-1], abs=1e-6)


def test_a_log_that_comes_in_pieces_is_learnt_from_too():
    log = softmax(300)
    found = estimate_behaviour(Reread(log, 400), model=SMALL, folds=2)
    assert 0 < divergence(log, found) < 0.04


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int32", "float16", "float32"])
def test_observations_and_actions_may_be_of_any_dtype(dtype):
    rng = np.random.default_rng(0)
    seen = rng.integers(2, size=(200, 3))
    action = ArraySpec("bool" if dtype == "bool" else "int8", (), (2,))
    log = held(seen, seen[:, 0], 5, observation=ArraySpec(dtype, (3,)), action=action)
    found = estimate_behaviour(log, model=partial(SMALL, most_passes=15), folds=2)
    assert np.exp(found.log_prob_behaviour(log.trajectories)).mean() > 0.8


def test_what_does_not_vary_is_no_trouble():
    seen = np.column_stack([np.full(200, 7.3), np.linspace(-1, 1, 200)])
    log = held(seen, seen > 0, 5, observation=FLOATS, action=ArraySpec("int64", (2,), (2, 2)))
    found = estimate_behaviour(log, model=QUICK, folds=2)
    assert np.isfinite(found.log_prob_behaviour(log.trajectories)).all()


@pytest.mark.parametrize("episodes", [2, 3])
def test_too_few_episodes_for_networks_are_refused(episodes):
    log = softmax(episodes, seed=0)
    with pytest.raises(ValueError, match=rf"has {episodes} episodes, (too few|in 1 of)"):
        estimate_behaviour(log, model=QUICK, folds=2)


def test_a_network_that_gives_no_number_is_said():
    log = gaussian(40)
    actions = log.trajectories.actions.copy()
    actions[8] = 1e101
    far = InMemory(replace(log.trajectories, actions=actions), log.schema)
    with pytest.raises(
        ValueError, match=r"actions: \[1e\+101, .* in episode 1, step 3 is too large"
    ):
        estimate_behaviour(far, model=QUICK)


def test_counts_are_chosen_where_a_table_is_small(monkeypatch):
    monkeypatch.setattr("reweigh.behaviour.estimate.fit_network", QUICK)
    two = replace(NUMBER, choices=(2,))

    def described(states):
        log = held(
            [0] * 60, [0] * 60, 5, observation=replace(NUMBER, choices=(states,)), action=two
        )
        return estimate_behaviour(log, folds=2).description

    assert described(30) == "estimated by counts, 2-fold cross-fitted"
    assert described(31) == "estimated by a network of 16, 2-fold cross-fitted"
    found = estimate_behaviour(softmax(20), model=counts_where_possible, folds=2)
    assert "a network of 16" in found.description


def test_a_network_without_layers_says_so():
    log = softmax(20)
    found = estimate_behaviour(log, model=partial(QUICK, hidden=()), folds=2)
    assert found.description == "estimated by a network of no hidden layers, 2-fold cross-fitted"
    deep = estimate_behaviour(log, model=partial(QUICK, hidden=(4, 3)), folds=2)
    assert deep.description == "estimated by a network of 4 x 3, 2-fold cross-fitted"
