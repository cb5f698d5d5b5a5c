import math
from functools import partial

import pytest
import torch
from core_batches import close
from marginal_samples import problem
from modelled_samples import (
    HORIZON,
    Table,
    doubly_robust,
    logged,
    population,
    simulated,
    standard_error,
    true_value,
    value,
    weighted_doubly_robust,
    without_behaviour,
)

from reweigh import recipes
from reweigh.core.terms import influence, totals
from reweigh.evaluation.critics import CriticValues, linear_critic, tabular_critic
from reweigh.evaluation.methods import direct_method
from reweigh.evaluation.resampling import refit

ROBUST = (doubly_robust, weighted_doubly_robust)
each_robust = pytest.mark.parametrize("estimator", ROBUST)


def nothing(fitted, evaluated):
    """A critic that expects nothing."""
    none = torch.zeros(evaluated.segments.size).double()
    return CriticValues(none, none)


def fixed(table):
    """A critic that knows `Q_t(s, a) [T, states, actions]` beforehand."""

    def critic(fitted, evaluated):
        batch, time = evaluated.batch, evaluated.segments.time
        q = table[time, batch.observations]
        v = (evaluated.policy.logits.softmax(1)[batch.observations] * q).sum(1)
        return CriticValues(v, q.gather(1, batch.actions.unsqueeze(1)).squeeze(1))

    return critic


def random_table(seed, times=HORIZON, states=2, actions=2):
    g = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(times, states, actions, generator=g, dtype=torch.float64)


def same_terms(first, second):
    whole = totals(first), totals(second)
    close(whole[0].value, whole[1].value)
    close(influence(first, whole[0]), influence(second, whole[1]))
    close(first.diagnosed, second.diagnosed)


@each_robust
@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_critic_the_expectation_is_the_value(estimator, seed):
    """Over every trajectory as often as it is likely."""
    p = population()
    terms = estimator(p.log, critic=fixed(random_table(seed)))
    close(totals(terms).value, p.value, 1e-10)
    assert abs(value(recipes.behaviour.terms(p.log.sample)) - p.value) > 0.1


@each_robust
def test_a_better_critic_leaves_less_to_the_weights(estimator):
    p = population()
    errors = [
        standard_error(estimator(p.log, critic=fixed(table)))
        for table in (p.action_values, 0.5 * p.action_values, random_table(1))
    ]
    assert errors[0] < 0.8 * errors[1] < 0.5 * errors[2]


@pytest.mark.parametrize("critic", [tabular_critic, linear_critic(count=8)])
def test_fitted_to_others_it_stays_close_to_the_value(critic):
    p = population()
    for estimator in ROBUST:
        assert abs(value(estimator(p.log, critic=critic)) - p.value) < 1e-3


@each_robust
def test_where_nothing_is_left_to_chance_every_episode_says_the_value(estimator):
    """Deterministic rewards and dynamics, and a critic that knows them: the direct method."""
    g = torch.Generator().manual_seed(1)
    actions = torch.randint(2, (100, 3), generator=g)
    states = torch.zeros(100, 4).long()
    for t in range(3):
        states[:, t + 1] = 2 * states[:, t] + 1 + actions[:, t]
    rewards = torch.randn(15, 2, generator=g)[states[:, :3], actions]
    policy, behaviour = (Table(torch.randn(15, 2, generator=g).double()) for _ in range(2))
    seen = states[:, :3].flatten()
    x = logged(
        seen,
        actions.flatten(),
        rewards.flatten(),
        [3] * 100,
        policy,
        log_probs=behaviour(seen).log_prob(actions.flatten()),
        final=states[:, 3],
        terminated=torch.zeros(100).bool(),
    )
    direct = direct_method(x, critic=tabular_critic)
    terms = estimator(x, critic=tabular_critic, folds=2)
    parts = influence(terms, totals(terms))
    close(parts, [value(direct)] * 100, 1e-9)
    assert standard_error(direct) < 1e-9
    assert standard_error(recipes.per_decision.terms(x.sample)) > 0.1


def test_a_critic_that_expects_nothing_leaves_importance_sampling():
    x = simulated(problem(1, ending=0.4), 1, episodes=30, horizon=6)
    same_terms(doubly_robust(x, critic=nothing), recipes.per_decision.terms(x.sample))
    same_terms(
        weighted_doubly_robust(x, critic=nothing), recipes.weighted_per_decision.terms(x.sample)
    )
    on_policy = simulated(problem(1), 1, episodes=30, horizon=6, target=problem(1).behaviour)
    close(doubly_robust(on_policy, critic=nothing).plain, on_policy.sample.returns, 1e-10)


def by_loops(x, critic):
    """DR by Jiang and Li's recursion, WDR by Thomas and Brunskill's three sums."""
    found, discount = critic(x, x), x.sample.discount
    horizon = int(x.segments.lengths.max())
    episodes = []
    for begin, end in zip(x.segments.start.tolist(), x.segments.stop.tolist(), strict=True):
        rho = (x.sample.log_prob_target - x.sample.log_prob_behaviour)[begin:end].exp().tolist()
        rows = [y[begin:end].tolist() for y in (x.batch.rewards, found.values, found.action_values)]
        episodes.append([rho, *rows])
    robust = []
    for rho, r, v, q in episodes:
        after = 0.0
        for t in reversed(range(len(r))):
            after = v[t] + rho[t] * (r[t] + discount * after - q[t])
        robust.append(after)
    weights = []
    for rho, *_ in episodes:
        w = [1.0]
        for t in range(horizon):
            w.append(w[-1] * (rho[t] if t < len(rho) else 1.0))
        weights.append(w)
    total = [sum(w[t] for w in weights) for t in range(horizon + 1)]
    weighted = 0.0
    for w, (_, r, v, q) in zip(weights, episodes, strict=True):
        for t in range(len(r)):
            now, before = w[t + 1] / total[t + 1], w[t] / total[t]
            weighted += discount**t * (now * r[t] - now * q[t] + before * v[t])
    return robust, weighted


@pytest.mark.parametrize("seed", range(3))
def test_both_are_the_published_formulas(seed):
    x = simulated(problem(seed, ending=0.4), seed, episodes=12, horizon=6)
    critic = fixed(random_table(seed, 6, 5, 3))
    robust, weighted = by_loops(x, critic)
    found = doubly_robust(x, critic=critic)
    close(found.plain, robust, 1e-10)
    close(found.diagnosed, x.sample.log_trajectory)
    found = weighted_doubly_robust(x, critic=critic)
    close(totals(found).value, weighted, 1e-10)
    close(found.diagnosed, x.sample.log_trajectory)


def test_with_the_behaviour_as_target_all_agree_with_the_mean_return():
    given = problem(4, ending=0.3)
    x = simulated(given, 4, episodes=400, horizon=8, target=given.behaviour)
    mean, error = float(x.sample.returns.mean()), standard_error(recipes.behaviour.terms(x.sample))
    for estimator in (*ROBUST, direct_method):
        found = estimator(x)
        assert abs(value(found) - mean) < 3 * error
        assert 0.3 * error < standard_error(found) < error


@each_robust
def test_episodes_without_return_count(estimator):
    """Rewards in two of ten episodes: left out, the others would make it five times as much."""
    states = torch.zeros(20).long()
    rewards = torch.zeros(20).double()
    rewards[[3, 9]] = 4.0
    policy = Table(torch.zeros(1, 2))
    x = logged(states, torch.arange(20) % 2, rewards, [2] * 10, policy)
    for critic in (nothing, tabular_critic):
        close(totals(estimator(x, critic=critic)).value, 0.8, 0.2)
        assert len(estimator(x, critic=critic)) == 10
    close(totals(estimator(x, critic=nothing)).value, 0.8)


@pytest.mark.parametrize("estimator", [*ROBUST, direct_method])
@pytest.mark.parametrize("terminated", [True, False])
def test_long_episodes_of_many_actions(estimator, terminated):
    """A product of 400 probabilities of 0.1 is 10^-400, which no float holds."""
    x = logged(
        torch.arange(400).repeat(20),
        (torch.arange(8000) // 400 + torch.arange(8000) * 3) % 10,
        torch.ones(8000),
        [400] * 20,
        Table(torch.zeros(400, 10)),
        log_probs=torch.full((8000,), math.log(0.1), dtype=torch.float64),
        final=torch.full((20,), 0),
        terminated=torch.full((20,), terminated),
    )
    if estimator is direct_method:
        estimator = partial(direct_method, groups=2)
    assert float(x.sample.log_prob_behaviour[:400].sum()) < -900
    assert value(estimator(x)) == pytest.approx(400, rel=1e-6)
    if not terminated:
        assert value(estimator(x, critic=linear_critic(count=3))) == pytest.approx(400, rel=1e-6)


def test_the_direct_method_is_the_value_in_the_counted_model():
    x = simulated(problem(1, ending=0.4), 1, episodes=40, horizon=7, cut=0.1)
    found = direct_method(x, critic=tabular_critic)
    close(totals(found).value, tabular_critic(x, x).values[x.segments.is_first].mean(), 1e-12)
    p = population()
    close(totals(direct_method(p.log)).value, p.value, 1e-10)
    assert found.refitted and found.diagnosed is None and len(found) == 20


def test_the_direct_method_needs_no_behaviour():
    x = simulated(problem(1), 1, episodes=40, horizon=7)
    missing = without_behaviour(x)
    close(direct_method(missing).plain, direct_method(x).plain, 0)
    for estimator in ROBUST:
        with pytest.raises(ValueError, match="behaviour's log-probabilities"):
            estimator(missing)


def test_the_standard_error_is_the_spread_over_logs():
    given = problem(6)
    found = [
        [estimator(simulated(given, seed, episodes=40, horizon=5)) for seed in range(40)]
        for estimator in (partial(direct_method, groups=10), doubly_robust)
    ]
    for terms in found:
        values = torch.tensor([value(x) for x in terms])
        errors = torch.tensor([standard_error(x) for x in terms])
        assert 0.75 < float(errors.mean() / values.std()) < 1.4
        truth = true_value(given, horizon=5)
        assert abs(float(values.mean()) - truth) < 3.5 * float(values.std()) / 40**0.5


def test_leaving_out_single_episodes_of_a_mean_gives_the_episodes():
    x = simulated(problem(1, ending=0.4), 1, episodes=15, horizon=7)
    found = refit(lambda some: some.sample.returns.mean(), x)
    close(found.plain, x.sample.returns, 1e-10)
    assert found.refitted


@pytest.mark.parametrize("groups", [2, 4, 10])
def test_groups_of_unequal_size(groups):
    x = simulated(problem(1, ending=0.4), 1, episodes=23, horizon=7)
    point = lambda some: some.sample.returns.mean() ** 2  # noqa: E731
    found = refit(point, x, groups=groups)
    value, pseudo, share = float(point(x)), [], []
    for g in range(groups):
        rest = [i for i in range(23) if i % groups != g]
        h = 23 / (23 - len(rest))
        pseudo.append(h * value - (h - 1) * float(x.sample.returns[rest].mean()) ** 2)
        share.append(h)
    mean = sum(pseudo) / groups
    variance = sum((p - mean) ** 2 / (h - 1) for p, h in zip(pseudo, share, strict=True)) / groups
    assert len(found) == groups
    assert float(found.plain.mean()) == pytest.approx(value)
    assert standard_error(found) ** 2 == pytest.approx(variance, rel=0.02)


def test_groups_of_equal_size_give_exactly_the_jackknife():
    x = simulated(problem(1, ending=0.4), 1, episodes=24, horizon=7)
    found = refit(lambda some: some.sample.returns.mean(), x, groups=6)
    of_groups = x.sample.returns.reshape(4, 6).mean(0)
    close(found.plain, of_groups, 1e-10)


def test_one_episode_says_nothing_of_its_error():
    x = simulated(problem(1), 1, episodes=1, horizon=7)
    found = direct_method(x)
    assert found.plain.shape == (1,) and found.refitted
    close(found.plain[0], tabular_critic(x, x).values[0])


def test_what_cannot_be_estimated_is_refused():
    x = simulated(problem(1), 1, episodes=6, horizon=3)
    for estimator in ROBUST:
        with pytest.raises(ValueError, match="only one"):
            estimator(x.select(torch.tensor([0])))
    with pytest.raises(ValueError, match="from all episodes is nan"):
        refit(lambda some: math.nan, x)
    with pytest.raises(ValueError, match="group 0 left out is inf"):
        refit(lambda some: 1.0 if len(some) == 6 else math.inf, x)
    with pytest.raises(ValueError, match="groups"):
        refit(lambda some: 1.0, x, groups=1)
