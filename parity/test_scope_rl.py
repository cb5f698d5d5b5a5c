"""SCOPE-RL: off-policy estimators on episodes of one length, and where its numbers are others."""

import numpy as np
import pytest
import torch
from scope_rl import utils
from scope_rl.ope.discrete import (
    DoublyRobust,
    PerDecisionImportanceSampling,
    SelfNormalizedPDIS,
    SelfNormalizedTIS,
    TrajectoryWiseImportanceSampling,
)

from reweigh import Segments, log_ratios, recipes, returns
from reweigh.core.sample import Sample
from reweigh.core.terms import Terms, influence, totals
from reweigh.evaluation.intervals import Evidence, hoeffding, student_t

EPISODES, STEPS, ACTIONS, DISCOUNT = 40, 6, 3, 0.9
PAIRS = [
    (TrajectoryWiseImportanceSampling, recipes.importance_sampling),
    (PerDecisionImportanceSampling, recipes.per_decision),
    (SelfNormalizedTIS, recipes.weighted_importance_sampling),
    (SelfNormalizedPDIS, recipes.weighted_per_decision),
]


class Logged:
    """Random episodes as SCOPE-RL takes them, `[episodes * steps]`, and as reweigh does."""

    def __init__(self, seed, episodes=EPISODES, steps=STEPS, actions=ACTIONS):
        rng = np.random.default_rng(seed)
        size = episodes * steps
        self.steps = steps
        self.behaviour = rng.dirichlet(np.ones(actions), size)
        self.target = rng.dirichlet(np.ones(actions), size)
        self.action = (self.behaviour.cumsum(1) < rng.random((size, 1))).sum(1)
        self.reward = rng.standard_normal(size)
        self.q = rng.standard_normal((size, actions))

    def taken(self, rows):
        return rows[np.arange(len(rows)), self.action]

    def theirs(self, estimator, **more):
        return estimator().estimate_policy_value(
            step_per_trajectory=self.steps,
            action=self.action,
            reward=self.reward,
            pscore=self.taken(self.behaviour),
            evaluation_policy_action_dist=self.target,
            gamma=DISCOUNT,
            **more,
        )

    def sample(self):
        return Sample(
            torch.from_numpy(self.taken(self.target)).log(),
            torch.from_numpy(self.taken(self.behaviour)).log(),
            Segments.packed([self.steps] * (len(self.reward) // self.steps)),
            torch.from_numpy(self.reward),
            DISCOUNT,
        )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("peer", "ours"), PAIRS)
def test_estimators(agree, seed, peer, ours):
    log = Logged(seed)
    found = ours.estimate(log.sample())
    name = f"recipes.{ours.name}.estimate(...)"
    agree("scope-rl", f"`{peer.__name__}`", name, found, log.theirs(peer))


@pytest.mark.parametrize("seed", range(3))
def test_doubly_robust(agree, seed):
    log = Logged(seed)
    sample = log.sample()
    q, v = torch.from_numpy(log.taken(log.q)), torch.from_numpy((log.target * log.q).sum(1))
    ratios = log_ratios(sample.log_prob_target, sample.log_prob_behaviour, sample.segments)
    found = returns.doubly_robust_values(
        sample.rewards, ratios, v, q, sample.segments, discount=DISCOUNT
    ).values[sample.segments.start]
    theirs = log.theirs(DoublyRobust, state_action_value_prediction=log.q)
    agree("scope-rl", "`DoublyRobust`", "returns.doubly_robust_values(...)", found.mean(), theirs)


def test_400_steps_of_ten_actions(differ):
    log = Logged(0, episodes=4, steps=400, actions=10)
    log.behaviour = log.target = np.full((1600, 10), 0.1)
    log.reward = np.ones(1600)
    right = sum(DISCOUNT**t for t in range(400))
    for peer, ours in PAIRS:
        with np.errstate(invalid="ignore"):
            assert np.isnan(log.theirs(peer))
        assert float(totals(ours(log.sample())).value) == pytest.approx(right)
    differ(
        "scope-rl",
        "all four estimators, policies alike, ten actions, 400 steps",
        "nan",
        f"{right:.2f}",
        "reweigh: log-ratios are added; SCOPE-RL divides products that underflow",
    )


def test_small_weights(differ):
    log = Logged(1, steps=40, actions=2)
    log.behaviour, log.target = (np.tile(p, (EPISODES * 40, 1)) for p in ([0.8, 0.2], [0.4, 0.6]))
    log.action[:] = 0
    log.reward = np.ones(EPISODES * 40)
    right = sum(DISCOUNT**t for t in range(40))
    theirs = log.theirs(SelfNormalizedTIS)
    ours = float(recipes.weighted_importance_sampling.estimate(log.sample()))
    assert ours == pytest.approx(right) and theirs < 0.02 * right
    differ(
        "scope-rl",
        "`SelfNormalizedTIS`, every reward 1, all weights 2⁻⁴⁰",
        f"{theirs:.3f}",
        f"{ours:.3f}",
        "reweigh: a constant shift of log-weights cancels; 1e-10 is added to the mean weight there",
    )


def test_hoeffding(differ):
    x = np.random.default_rng(0).random(10_000)
    found = utils.estimate_confidence_interval_by_hoeffding(x, alpha=0.05)
    theirs = [v for k, v in found.items() if "CI" in k]
    ours = hoeffding(evidence(x), 0.95, lowest=0.0, highest=1.0)
    assert max(theirs) - min(theirs) > 250 and ours.high - ours.low < 0.028
    differ(
        "scope-rl",
        "Hoeffding's 95 % interval of 10,000 uniform numbers in [0, 1]",
        f"[{min(theirs):.0f}, {max(theirs):.0f}]",
        f"[{ours.low:.3f}, {ours.high:.3f}]",
        "reweigh: n stands under the fraction bar",
    )


def test_student_t(differ):
    rng, hits = np.random.default_rng(1), np.zeros(2)
    for _ in range(2000):
        x = rng.standard_normal(20)
        found = utils.estimate_confidence_interval_by_t_test(x, alpha=0.05)
        bounds = [v for k, v in found.items() if "CI" in k]
        ours = student_t(evidence(x), 0.95)
        hits += min(bounds) < 0 < max(bounds), ours.low < 0 < ours.high
    theirs, ours = hits / 2000
    assert theirs < 0.92 and 0.94 < ours < 0.96
    differ(
        "scope-rl",
        "the 95 % t interval of 20 normal numbers holds their mean in",
        f"{theirs:.1%}",
        f"{ours:.1%}",
        "reweigh: two sides of 2.5 % each",
    )


def evidence(x):
    terms = Terms(torch.from_numpy(x), maximum_weight=1.0)
    whole = totals(terms)
    return Evidence(float(whole.value), influence(terms, whole), lambda: [terms])
