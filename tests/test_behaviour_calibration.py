"""The calibration report: silent about what is right, and in words about what is not."""

import re
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from behaviour_samples import Reread, draw, gaussian, held, table, tabular
from torch import nn
from torch.distributions import Independent, Normal

from reweigh.acting.tabular import TabularPolicy
from reweigh.behaviour import counts, estimate_behaviour
from reweigh.behaviour.calibrating import calibrate
from reweigh.behaviour.fitted import Fitted, Material
from reweigh.behaviour.survey import Moments, Survey
from reweigh.data import ArraySpec
from reweigh.data.episodes import Folds, InMemory
from reweigh.data.schema import MISSING

P = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3], [0.95, 0.048, 0.002]])


class Linear(nn.Module):
    """The policy of `behaviour_samples.gaussian`, or one that is wrong on purpose."""

    def __init__(self, deviation=0.5, shift=0.0, unit=1.0):
        super().__init__()
        self.deviation, self.shift, self.unit = deviation, shift, unit

    def forward(self, observations):
        mean = self.unit * (observations.flip(1) + self.shift)
        return Independent(Normal(mean, self.unit * self.deviation), 1)


def calibrated(log, policy, folds=3):
    """The report on one policy that stands for all."""
    material = Material.of(log, Folds(folds, seed=0))
    return calibrate(material, Fitted((policy,) * (folds + 1), "", "known"))


def powered(p, power):
    return p**power / (p**power).sum(1, keepdims=True)


def test_the_true_policy_is_calibrated():
    log = tabular(P, 2000)
    found = calibrated(log, table(P))
    assert found.problems == ()
    assert found.expected_calibration_error < 0.01
    assert (found.steps, found.episodes) == (10_000, 2000)
    assert found.log_likelihood == pytest.approx(
        log.trajectories.log_prob_behaviour.mean(), abs=1e-12
    )
    assert found.in_sample_log_likelihood == pytest.approx(found.log_likelihood, abs=1e-12)
    assert found.episode_weight_error == pytest.approx(0, abs=1e-6)
    recorded = found.recorded
    assert recorded is not None
    assert recorded.largest_difference < 1e-12
    assert recorded.mean_weight == pytest.approx(1, abs=1e-12)
    assert recorded.behaviour_weight == pytest.approx(1, abs=1e-12)
    assert found.lines()[-1] == "No problem is seen."


def test_a_policy_that_is_too_sure_is_not():
    found = calibrated(tabular(P, 2000), table(powered(P, 1.6)))
    assert found.expected_calibration_error > 0.04
    # What happens 0.7 of the time is predicted with 0.85.
    (likely,) = [s for s in found.problems if "predicted with 0.85" in s]
    assert "happens 0.69 of the time" in likely and "come out 0.815 times" in likely
    # Rare actions are told apart however rare: one of 0.002 is predicted with 0.00005.
    assert any("with 5.2e-05 happens 0.0028" in s for s in found.problems)
    assert set(found.problems) <= set(found.lines())
    r = found.recorded
    assert r is not None and r.behaviour_weight > 1.15
    assert any("Under the behaviour itself a step's weight" in s for s in found.problems)


def test_the_table_counts_every_choice_once():
    log = tabular(P, 300)
    t = log.trajectories
    predicted = powered(P, 1.3)
    found = calibrated(log, table(predicted)).reliability
    p = predicted[t.observations]
    taken = np.eye(3)[t.actions]
    edges = np.array([0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 2])
    rows = []
    for low, high in pairwise(edges):
        inside = (low <= p) & (p < high)
        if inside.any():
            error = np.sqrt((p * (1 - p))[inside].sum()) / inside.sum()
            rows.append((p[inside].mean(), taken[inside].mean(), inside.sum(), error))
    np.testing.assert_allclose(np.array(found), rows, rtol=1e-9)
    error = sum(n * abs(seen - p) for p, seen, n, _ in rows) / (2 * t.steps)
    whole = calibrated(log, table(predicted))
    assert whole.expected_calibration_error == pytest.approx(error, rel=1e-9)


def test_sums_do_not_depend_on_how_the_log_is_read():
    for log, policy in ((tabular(P, 40), table(P)), (gaussian(40), Linear(0.7))):
        whole, pieces = calibrated(log, policy), calibrated(Reread(log), policy)
        for name in ("log_likelihood", "marginal_log_likelihood", "in_sample_log_likelihood"):
            assert getattr(pieces, name) == pytest.approx(getattr(whole, name), rel=1e-12)
        np.testing.assert_allclose(pieces.recorded, whole.recorded, rtol=1e-9)
        if whole.reliability:
            np.testing.assert_allclose(pieces.reliability, whole.reliability, rtol=1e-9)
        else:
            np.testing.assert_allclose(
                [n[:5] for n in pieces.numbers], [n[:5] for n in whole.numbers], rtol=1e-9
            )


def test_the_marginal_is_that_of_the_other_folds():
    log = tabular(P, 60)
    done, fold = log.trajectories.actions, Folds(3, 0).of_steps(log.trajectories)
    total = 0.0
    for k in range(3):
        times = np.bincount(done[fold != k], minlength=3) + 0.5
        total += np.log(times / times.sum())[done[fold == k]].sum()
    assert calibrated(log, table(P)).marginal_log_likelihood == pytest.approx(total / 300)
    log = gaussian(60)
    done, fold = log.trajectories.actions, Folds(3, 0).of_steps(log.trajectories)
    total = 0.0
    for k in range(3):
        others, own = done[fold != k], torch.from_numpy(done[fold == k])
        normal = Normal(torch.from_numpy(others.mean(0)), torch.from_numpy(others.std(0)))
        total += float(normal.log_prob(own).sum())
    assert calibrated(log, Linear()).marginal_log_likelihood == pytest.approx(total / 300)


def test_moments_of_parts_are_those_of_the_whole():
    sample = 1e8 + np.random.default_rng(0).standard_normal((50, 2)) * [1, 1e-3]
    merged = Moments.of(sample[:7]).merge(Moments.of(sample[7:]))
    np.testing.assert_allclose(merged.mean, sample.mean(0), rtol=1e-15)
    np.testing.assert_allclose(merged.deviation, sample.std(0), rtol=1e-4)
    assert merged.size == 50
    survey = Survey.of(gaussian(30), Folds(3, 0))
    fold = Folds(3, 0).of_steps(gaussian(30).trajectories)
    seen = gaussian(30).trajectories.observations
    np.testing.assert_allclose(survey.observations(without=1).mean, seen[fold != 1].mean(0))
    np.testing.assert_allclose(survey.observations(without=3).mean, seen.mean(0))


def test_true_densities_are_calibrated():
    found = calibrated(gaussian(2000, unit=50.0), Linear(unit=50.0))
    assert found.problems == () and found.reliability == ()
    assert np.isnan(found.expected_calibration_error)
    for n in found.numbers:
        np.testing.assert_allclose(n[:4], [0, 1, 0.5, 0.95], atol=0.025)
        assert 0 < n.at_bounds < 0.001


@pytest.mark.parametrize(
    ("log", "policy", "sentence"),
    [
        (gaussian(2000, deviation=0.6), Linear(0.5), r"Number 1 spreads 1\.2 times as far as .*"
         r"weights of common actions come out 0\.83 times"),
        (gaussian(2000), Linear(shift=0.06), r"Number 0 lies -0\.1[0-9] deviations from where"),
        (gaussian(2000, deviation=lambda x: 0.1 + (x[:, :1] > 0)), Linear(np.sqrt(0.61)),
         r"% of number 0 lie where 50 % are predicted: it is not normal with one"),
    ],
)  # fmt: skip
def test_a_wrong_density_is_said_in_words(log, policy, sentence):
    assert any(re.match(f".*{sentence}", problem) for problem in calibrated(log, policy).problems)


def test_clipped_actions_are_noticed():
    log = gaussian(500)
    clipped = np.clip(log.trajectories.actions, -1.5, 2.0)
    found = calibrated(InMemory(replace(log.trajectories, actions=clipped), log.schema), Linear())
    (sentence, *_) = [s for s in found.problems if "clipped" in s]
    share = ((clipped[:, 0] == -1.5) | (clipped[:, 0] == 2.0)).mean()
    assert sentence.startswith(f"{100 * share:.2g} % of number 0 are exactly -1.5 or 2, as if")


@pytest.mark.parametrize("together", [0.0, 0.4])
@pytest.mark.parametrize("continuous", [False, True])
def test_numbers_that_go_together_are_noticed(together, continuous):
    rng = np.random.default_rng(0)
    if continuous:
        log = gaussian(1000)
        t = log.trajectories
        noise = t.actions - t.observations[:, ::-1]
        noise[:, 1] = together * noise[:, 0] + np.sqrt(1 - together**2) * noise[:, 1]
        log = InMemory(replace(t, actions=t.observations[:, ::-1] + noise), log.schema)
        found = calibrated(log, Linear())
    else:
        seen = rng.integers(3, size=5000)
        p = np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]])
        first = draw(rng, p[seen])
        second = np.where(rng.random(5000) < together, first, draw(rng, p[seen]))
        policy = TabularPolicy([3], [2], [2, 2])
        policy.logits.data.copy_(torch.from_numpy(np.log(np.hstack([p, p]))))
        action = ArraySpec("int64", (2,), (2, 2))
        done = np.column_stack([first, second])
        number = ArraySpec("int64", (), (3,))
        log = held(seen, done, 5, observation=number, action=action)
        found = calibrated(log, policy)
    assert found.together is not None
    assert abs(found.together.correlation) == pytest.approx(together, abs=0.05)
    errors = found.together.correlation * np.sqrt(5000)  # and a little less, if they are uneven
    assert found.together.standard_errors == pytest.approx(errors, rel=0.1)
    said = [s for s in found.problems if "Numbers 0 and 1 of an action go together" in s]
    assert len(said) == (together > 0)


def test_recorded_log_probs_of_other_actions_are_noticed():
    log = tabular(P, 1000)
    shifted = replace(
        log.trajectories, log_prob_behaviour=np.roll(log.trajectories.log_prob_behaviour, 1)
    )
    found = calibrated(InMemory(shifted, log.schema), table(P))
    assert any("are not those of the logged actions" in s for s in found.problems)
    r = found.recorded
    difference = np.abs(shifted.log_prob_behaviour - log.trajectories.log_prob_behaviour)
    assert r is not None and r.mean_difference == pytest.approx(difference.mean())
    assert r.largest_difference == pytest.approx(difference.max())
    weights = np.exp(log.trajectories.log_prob_behaviour - shifted.log_prob_behaviour)
    assert r.mean_weight == pytest.approx(weights.mean())
    assert r.behaviour_weight == pytest.approx((1 / weights).mean())
    error = np.sqrt(weights.var() / len(weights))
    assert r.standard_error == pytest.approx(error)
    missing = replace(shifted, log_prob_behaviour=np.full(shifted.steps, np.nan))
    unknown = InMemory(missing, replace(log.schema, behaviour=MISSING))
    assert calibrated(unknown, table(P)).recorded is None
    guessed = InMemory(shifted, replace(log.schema, behaviour="estimated by a friend"))
    assert calibrated(guessed, table(P)).recorded is None


def test_the_noise_of_an_estimate_is_foreseen():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(4, 5.0), size=60)
    foreseen, actual = [], []
    for seed in range(10):
        log = tabular(p, 100, length=20, seed=seed)
        found = estimate_behaviour(log, model=counts)
        uncorrected = (
            found.log_prob_behaviour(log.trajectories) - log.trajectories.log_prob_behaviour
        )
        actual.append(uncorrected.reshape(100, 20).sum(1).std())
        foreseen.append(found.calibration.episode_weight_error)
    assert np.mean(actual) == pytest.approx(np.mean(foreseen), rel=0.25)
    assert any("Noise of the estimate alone" in s for s in found.calibration.problems)


def test_an_estimate_with_too_little_to_go_by_says_so():
    p = np.full((50, 3), 1 / 3)
    found = estimate_behaviour(tabular(p, 20), model=partial(counts, smoothing=0.1)).calibration
    assert any("worse than one that looks at no observation" in s for s in found.problems)


def test_an_action_without_probability_is_reported_before_it_is_refused():
    done = np.zeros(100, int)
    done[33] = 1
    log = held(0 * done, done, 5, observation=ArraySpec("int64", (), (1,)),
               action=ArraySpec("int64", (), (2,)))  # fmt: skip
    found = estimate_behaviour(log, model=partial(counts, smoothing=0)).calibration
    assert found.log_likelihood == -np.inf and found.episode_weight_error == np.inf
    assert found.expected_calibration_error > 0
    assert max(map(len, found.lines())) < 300


def test_a_policy_of_nan_is_refused_with_its_place():
    class Broken(Linear):
        def forward(self, observations):
            scale = torch.where(observations == far, torch.nan, 0.5)
            return Independent(Normal(observations, scale, validate_args=False), 1)

    log = gaussian(40)
    far = torch.from_numpy(log.trajectories.observations[13])
    with pytest.raises(ValueError, match=r"of action \[.*\] in episode 2, step 3 is nan"):
        calibrated(log, Broken())


def test_the_report_is_lines_of_text():
    for log in (tabular(P, 50), gaussian(50)):
        policy = table(P) if log.schema.discrete_actions else Linear()
        lines = calibrated(log, policy).lines()
        assert lines[0].startswith("250 steps in 50 episodes")
        assert all("\n" not in line for line in lines)
        assert any(line.split()[:1] == ["predicted" if log.schema.discrete_actions else "number"]
                   for line in lines)  # fmt: skip
