"""Behaviours that are counted: the frequencies themselves, and none of an episode's own."""

from dataclasses import replace
from functools import partial
from itertools import product
from math import comb

import numpy as np
import pytest
import torch
from behaviour_samples import NUMBER, Reread, gaussian, held, softmax, tabular

from reweigh.acting.policy import build
from reweigh.behaviour import counts, estimate_behaviour
from reweigh.data import ArraySpec, TrajectoryLog
from reweigh.data.episodes import Folds, InMemory

P = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3], [0.98, 0.01, 0.01]])
TWO = replace(NUMBER, choices=(2,))
EXACT = partial(counts, smoothing=0)


def frequencies(trajectories, keep, alpha=0.0, less=0.0):
    """By a loop: (n(s, a) + α) / (n(s) + α A), or with `less` choices in the denominator."""
    times = np.zeros((4, 3))
    for s, a, k in zip(trajectories.observations, trajectories.actions, keep, strict=True):
        times[s, a] += k
    return (times + alpha) / (times.sum(1, keepdims=True) + alpha * (3 - less))


def changed(log, actions):
    return InMemory(replace(log.trajectories, actions=actions), log.schema)


def test_without_smoothing_the_policy_is_the_frequencies():
    log = tabular(P, 200)
    found = estimate_behaviour(log, model=EXACT, seed=3)
    everything = np.ones(1000)
    probabilities = found.policy(torch.arange(4)).probs.detach().numpy()
    want = frequencies(log.trajectories, everything)
    np.testing.assert_allclose(probabilities, want, rtol=1e-14)
    assert found.description == "estimated by counts, 5-fold cross-fitted"
    again = build(found.policy_description)
    again.load_state_dict(found.policy.state_dict())
    assert torch.equal(again(torch.arange(4)).probs, found.policy(torch.arange(4)).probs)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_log_probs_are_the_other_folds_counts(alpha):
    log = tabular(P, 200)
    t = log.trajectories
    found = estimate_behaviour(log, model=partial(counts, smoothing=alpha), folds=3)
    log_prob_behaviour, fold = found.log_prob_behaviour(t), found.folds.of_steps(t)
    for k in range(3):
        of_weights = frequencies(t, fold != k, alpha, less=2.0)
        mine = fold == k
        want = np.log(of_weights[t.observations[mine], t.actions[mine]])
        np.testing.assert_allclose(log_prob_behaviour[mine], want, rtol=1e-12)
        policy = found.fitted.policies[k](torch.arange(4)).probs.detach().numpy()
        np.testing.assert_allclose(policy, frequencies(t, fold != k, alpha), rtol=1e-12)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.9])
def test_the_mean_inverse_of_a_smoothed_frequency_is_the_inverse(p):
    """The formula of the docstring, over every outcome of n steps."""
    n = 25
    chance = [comb(n, x) * p**x * (1 - p) ** (n - x) for x in range(n + 1)]
    mean = sum(c * (n + 1) / (x + 1) for x, c in enumerate(chance))
    assert mean == pytest.approx((1 - (1 - p) ** (n + 1)) / p, rel=1e-12)


def test_weights_of_the_behaviour_itself_are_one_on_average():
    means = []
    for seed in range(200):
        log = tabular(P, 40, seed=seed)
        found = estimate_behaviour(log, model=counts)
        means.append(
            np.exp(
                log.trajectories.log_prob_behaviour - found.log_prob_behaviour(log.trajectories)
            ).mean()
        )
    # But for actions that are in no other fold: about 160 steps, a quarter of them in each state.
    missed = (P * (1 - P) * (1 - P / 4) ** 160).sum() / 4
    assert missed > 0.004
    assert abs(np.mean(means) - 1 + missed) < 4 * np.std(means) / np.sqrt(200)


def test_what_an_episode_does_changes_nothing_of_its_own():
    log = tabular(P, 60)
    t = log.trajectories
    found = estimate_behaviour(log)
    before, fold = found.log_prob_behaviour(t), found.folds.of_steps(t)
    other = np.where(fold == 2, 2 - t.actions, t.actions)
    after = estimate_behaviour(changed(log, other)).log_prob_behaviour(t)
    np.testing.assert_array_equal(before[fold == 2], after[fold == 2])
    assert (before[fold != 2] != after[fold != 2]).mean() > 0.7


def test_order_pieces_and_fragments_do_not_matter(tmp_path):
    log = tabular(P, 30)
    t = log.trajectories
    found = estimate_behaviour(log)
    shuffled = t.select(np.random.default_rng(0).permutation(30))
    stored = TrajectoryLog.create(tmp_path / "log", log.schema)
    halves = replace(
        t.select(np.repeat(np.arange(30), 2)),
        observations=t.observations,
        actions=t.actions,
        rewards=t.rewards,
        log_prob_behaviour=t.log_prob_behaviour,
        lengths=np.tile([2, 3], 30),
        terminated=np.tile([False, True], 30),
        time_start=np.tile([0, 2], 30),
    )
    stored.append(halves)
    for source in (InMemory(shuffled, log.schema), Reread(log), Reread(log, 1), stored):
        other = estimate_behaviour(source)
        np.testing.assert_array_equal(other.log_prob_behaviour(t), found.log_prob_behaviour(t))
        assert torch.equal(other.policy.logits, found.policy.logits)
        assert other.calibration.reliability[0].choices == found.calibration.reliability[0].choices
        assert other.calibration.log_likelihood == pytest.approx(found.calibration.log_likelihood)
    np.testing.assert_array_equal(found.log_prob_behaviour(halves), found.log_prob_behaviour(t))
    some = np.array([17, 3])
    alone = found.log_prob_behaviour(t.select(some))
    np.testing.assert_array_equal(alone, found.log_prob_behaviour(t).reshape(30, 5)[some].ravel())


def test_the_error_shrinks_with_the_root_of_the_log():
    def error(episodes):
        squares = []
        for seed in range(20):
            log = tabular(P[:3], episodes, seed=seed)
            estimated = estimate_behaviour(log, model=counts).log_prob_behaviour(log.trajectories)
            squares.append(((estimated - log.trajectories.log_prob_behaviour) ** 2).mean())
        return np.sqrt(np.mean(squares))

    assert error(100) / error(1600) == pytest.approx(4, rel=0.15)


def test_folds_are_even_and_say_nothing_of_the_draw():
    folds = Folds(5, seed=1)
    episodes = np.arange(20_000)
    fold, drawn = folds.of(episodes), folds.draw(episodes)
    assert np.abs(np.bincount(fold, minlength=5) / 4000 - 1).max() < 0.06
    assert abs(np.corrcoef(fold, drawn)[0, 1]) < 0.03 and abs(drawn.mean() - 0.5) < 0.01
    np.testing.assert_array_equal(folds.of(episodes[7:9]), fold[7:9])
    assert (Folds(5, seed=2).of(episodes) == fold).mean() < 0.25
    assert (folds.of(episodes[:-1]) == folds.of(episodes[1:])).mean() < 0.25


def test_several_numbers_are_counted_each_for_itself():
    rng = np.random.default_rng(0)
    seen, done = rng.integers([2, 3], size=(500, 2)), rng.integers([2, 4], size=(500, 2))
    pair = ArraySpec("int64", (2,))
    log = held(seen, done, 5, observation=pair, action=replace(pair, choices=(2, 4)))
    found = estimate_behaviour(log, model=EXACT)
    for state in product(range(2), range(3)):
        where = (seen == state).all(1)
        probabilities = found.policy(torch.tensor([state])).base_dist.probs[0].detach()
        for i, n in enumerate((2, 4)):
            want = np.bincount(done[where, i], minlength=n) / where.sum()
            np.testing.assert_allclose(probabilities[i, :n], want, rtol=1e-12)
    smooth = estimate_behaviour(log, model=counts)
    fold = smooth.folds.of_steps(log.trajectories)
    step, k = 0, fold[0]
    others = (seen == seen[step]).all(1) & (fold != k)
    want = [np.log((others & (done[:, i] == done[step, i])).sum() + 1) for i in range(2)]
    want = sum(want) - 2 * np.log(others.sum() + 1)
    assert smooth.log_prob_behaviour(log.trajectories)[step] == pytest.approx(want, rel=1e-12)


def test_an_observation_of_no_other_fold_is_even_and_weighs_least():
    seen = np.zeros(100, int)
    seen[7] = 1
    log = held(seen, seen, 5, observation=NUMBER, action=replace(NUMBER, choices=(4,)))
    found = estimate_behaviour(log, model=counts)
    fold = found.folds.of_steps(log.trajectories)[7]
    policy = found.fitted.policies[fold]
    np.testing.assert_allclose(policy(torch.tensor([1])).probs.detach(), [[0.25] * 4])
    assert found.log_prob_behaviour(log.trajectories)[7] == 0
    with pytest.raises(ValueError, match=r"table"):
        found.policy(torch.tensor([2]))


def test_an_action_of_no_other_fold_needs_smoothing():
    done = np.zeros(100, int)
    done[33] = 1
    log = held(0 * done, done, 5, observation=NUMBER, action=replace(NUMBER, choices=(2,)))
    found = estimate_behaviour(log, model=EXACT)
    with pytest.raises(ValueError, match=r"action 1 in episode 6, step 3 is -inf: .*smoothing"):
        found.log_prob_behaviour(log.trajectories)


def test_trajectories_of_another_space_are_refused():
    found = estimate_behaviour(tabular(P, 20))
    t = tabular(P, 20).trajectories
    bad = t.actions.copy()
    bad[12] = 3
    with pytest.raises(ValueError, match=r"actions: 3 in episode 2, step 2"):
        found.log_prob_behaviour(replace(t, actions=bad))


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (gaussian(20), r"actions of float64\[2\] are not choices .*`fit_network`"),
        (softmax(20), r"float64\[2\] is no number of a state .*`fit_network`"),
        (
            held([0] * 9 + [-1] * 6, [0] * 15, 5, observation=NUMBER, action=TWO),
            r"it is negative in episode 1, step 4",
        ),
        (
            held([9**9] * 15, [0] * 15, 5, observation=NUMBER, action=TWO),
            r"774840980 cells, and 2000000 at most",
        ),
        (
            held([0] * 15, [0] * 15, 5, observation=NUMBER, action=NUMBER),
            "does not say how many choices",
        ),
        (tabular(P, 1), "1 episodes, in 1 of 5 folds"),
        (tabular(P, 0), "0 episodes, in 0 of 5 folds"),
    ],
)
def test_what_cannot_be_counted_is_said(log, message):
    with pytest.raises(ValueError, match=message):
        estimate_behaviour(log, model=counts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "folds must be an integer of at least 2, got 1"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"model": partial(counts, smoothing=-0.5)}, "smoothing must be finite .* got -0.5"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        estimate_behaviour(tabular(P, 20), **options)


def test_choices_that_the_log_does_not_name_are_those_that_occur():
    log = tabular(P, 50)
    plain = held(
        log.trajectories.observations,
        log.trajectories.actions,
        5,
        observation=ArraySpec("uint8", ()),
        action=log.schema.action,
    )
    found = estimate_behaviour(plain)
    known = estimate_behaviour(log)
    np.testing.assert_array_equal(
        found.log_prob_behaviour(plain.trajectories), known.log_prob_behaviour(log.trajectories)
    )
    assert found.calibration.recorded is None and known.calibration.recorded is not None


def test_the_held_log_is_checked():
    t = replace(tabular(P, 3).trajectories, log_prob_behaviour=np.ones(15))
    with pytest.raises(ValueError, match=r"log_prob_behaviour: 1.* in episode 0, step 0"):
        InMemory(t, tabular(P, 3).schema)
