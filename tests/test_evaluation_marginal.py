from dataclasses import replace
from functools import partial

import pytest
import torch
from core_batches import close
from marginal_samples import problem
from modelled_samples import (
    BEHAVIOUR,
    DISCOUNT,
    TARGET,
    Table,
    logged,
    population,
    simulated,
    standard_error,
    true_value,
    value,
    without_behaviour,
)
from torch import nn
from torch.distributions import Categorical
from torch.nn.functional import one_hot

from reweigh import recipes
from reweigh.core import marginal
from reweigh.core.segments import Segments
from reweigh.core.weights import balance_heuristic as balanced
from reweigh.evaluation import state_marginal
from reweigh.evaluation.logged import Logged
from reweigh.evaluation.methods import with_sources
from reweigh.evaluation.state_marginal import (
    kernel_marginal,
    linear_marginal,
    tabular_marginal,
)

BY_TIME = partial(tabular_marginal, fixed_point=marginal.finite_horizon_by_time)
MARGINAL = {
    "tabular": tabular_marginal,
    "by time": BY_TIME,
    "linear": linear_marginal,
    "kernel": kernel_marginal,
}
each = pytest.mark.parametrize("estimator", MARGINAL.values(), ids=MARGINAL)


def indicators(count):
    return lambda x: one_hot(x[:, 0].long(), count).double()


@pytest.mark.parametrize(
    "estimator",
    [tabular_marginal, BY_TIME, partial(linear_marginal, features=indicators(2), ridge=0.0)],
)
def test_in_a_population_counts_are_exact(estimator):
    p = population()
    assert value(estimator(p.log, groups=2)) == pytest.approx(p.value, rel=1e-9)


@pytest.mark.parametrize("estimator", [linear_marginal, kernel_marginal])
def test_in_a_population_smooth_ratios_come_close(estimator):
    p = population()
    assert abs(value(estimator(p.log, groups=2, most_steps=4000)) - p.value) < 0.05
    assert abs(value(recipes.behaviour.terms(p.log.sample)) - p.value) > 0.2


def test_one_hot_features_are_a_table():
    x = simulated(problem(1, ending=0.4), 3, episodes=80, horizon=6, cut=0.1)
    for fixed_point in (marginal.finite_horizon, marginal.finite_horizon_by_time):
        table = tabular_marginal(x, fixed_point=fixed_point)
        linear = linear_marginal(
            x, features=indicators(5), ridge=0.0, fixed_point=fixed_point, groups=20
        )
        close(linear.plain, table.plain, 1e-8)
        close(linear.diagnosed.exp(), table.diagnosed.exp(), 1e-8)


def by_loops(x, log_m):
    """Each time's mean of `r` by `m ρ`, times the mass that `m` says is there."""
    total = 0.0
    for t in range(int(x.segments.lengths.max())):
        here = [k for k in range(x.segments.size) if int(x.segments.time[k]) == t]
        m = [float(log_m[k].exp()) for k in here]
        rho = [
            float((x.sample.log_prob_target - x.sample.log_prob_behaviour)[k].exp()) for k in here
        ]
        weights = [a * b for a, b in zip(m, rho, strict=True)]
        rewards = [float(x.batch.rewards[k]) for k in here]
        mean = sum(w * r for w, r in zip(weights, rewards, strict=True)) / sum(weights)
        total += x.sample.discount**t * sum(m) / len(x) * mean
    return total


@pytest.mark.parametrize("fixed_point", [marginal.finite_horizon, marginal.finite_horizon_by_time])
def test_the_estimate_is_the_formula(fixed_point):
    x = simulated(problem(1, ending=0.4), 4, episodes=40, horizon=6)
    visits = marginal.Tabular(
        x.batch.observations,
        x.batch.final_observations,
        x.batch.terminated | (x.segments.lengths < 6),
        5,
    )
    log_m = fixed_point(visits, x.sample.log_ratios, x.segments).log_state_ratios
    found = tabular_marginal(x, fixed_point=fixed_point)
    assert value(found) == pytest.approx(by_loops(x, log_m), rel=1e-10)
    want = (log_m + x.sample.log_ratios).exp() / log_m.exp().mean()
    close(found.diagnosed.exp(), want, 1e-10)
    assert len(found) == 20 and found.refitted


def test_with_exact_ratios_renewal_gives_the_value():
    """The ratio of two long-run means, `E[γ^t r]` and of how often an episode ends."""
    p = population()
    log_m = p.ratios[p.log.segments.time, p.log.batch.observations].log()
    for scale in (0.0, 2.5):
        close(state_marginal.value_by_renewal(log_m + scale, p.log.sample), p.value, 1e-10)


def test_states_beside_time_tell_what_neither_tells():
    """The target's ratio of a state changes over time: a kernel of states alone is far off."""
    p = population()
    known = kernel_marginal(p.log, groups=2, most_steps=4000)
    blind = replace(p.log, batch=replace(p.log.batch, observations=0 * p.log.batch.observations))
    assert abs(value(known) - p.value) < abs(value(kernel_marginal(blind, groups=2)) - p.value)


@each
def test_with_the_behaviour_as_target_all_agree_with_the_mean_return(estimator):
    given = problem(4, ending=0.3)
    x = simulated(given, 4, episodes=200, horizon=8, target=given.behaviour)
    mean, error = float(x.sample.returns.mean()), standard_error(recipes.behaviour.terms(x.sample))
    found = estimator(x)
    assert abs(value(found) - mean) < 3 * error
    assert 0.3 * error < standard_error(found) < 1.5 * error
    if estimator is BY_TIME:
        assert value(found) == pytest.approx(mean)
        close(found.diagnosed, torch.zeros(x.segments.size), 1e-10)


def chain(seed, *, episodes, horizon=200, numbers=False):
    """A walk on ten places; rewards are higher up, and the target climbs more often."""
    g = torch.Generator().manual_seed(seed)
    place, steps = torch.full((episodes,), 4), []
    for _ in range(horizon):
        up = torch.rand(episodes, generator=g) < 0.5
        steps.append((place, up.long()))
        slip = torch.rand(episodes, generator=g) < 0.2
        place = (place + torch.where(up ^ slip, 1, -1)).clamp(0, 9)
    places, actions = (torch.stack(x, 1).flatten() for x in zip(*steps, strict=True))
    states, final = (places, place) if numbers else (places.unsqueeze(1), place.unsqueeze(1))
    return logged(
        states if numbers else states.float(),
        actions,
        places / 9 + 0.0,
        [horizon] * episodes,
        _Climber(),
        log_probs=torch.full((len(actions),), 0.5).log(),
        final=final if numbers else final.float(),
        terminated=torch.zeros(episodes).bool(),
    )


class _Climber(nn.Module):
    def forward(self, x):
        return Categorical(torch.tensor([0.4, 0.6]).expand(len(x), 2))


def climbing(horizon=200):
    mass, total = torch.zeros(10).double(), 0.0
    mass[4] = 1.0
    up = 0.6 * 0.8 + 0.4 * 0.2
    for _ in range(horizon):
        total += float(mass @ torch.arange(10).double()) / 9
        moved = torch.zeros(10).double()
        moved[1:] += up * mass[:-1]
        moved[:-1] += (1 - up) * mass[1:]
        moved[9] += up * mass[9]
        moved[0] += (1 - up) * mass[0]
        mass = moved
    return total


@pytest.mark.parametrize(
    ("estimator", "numbers", "tolerance"),
    [(tabular_marginal, True, 0.05), (linear_marginal, False, 0.05), (kernel_marginal, False, 0.1)],
)
def test_long_horizons_that_no_product_of_ratios_survives(estimator, numbers, tolerance):
    x, truth = chain(1, episodes=100, numbers=numbers), climbing()
    useless = recipes.per_decision.terms(x.sample)
    assert standard_error(useless) > 0.3 * truth or abs(value(useless) - truth) > 0.3 * truth
    found = estimator(x, groups=5)
    assert abs(value(found) - truth) < tolerance * truth
    assert abs(value(recipes.behaviour.terms(x.sample)) - truth) > 2 * tolerance * truth


@pytest.mark.parametrize("estimator", [tabular_marginal, linear_marginal, kernel_marginal])
def test_long_episodes_of_many_actions(estimator):
    """A product of 400 probabilities of 0.1 is 10^-400, which no float holds."""
    x = logged(
        torch.arange(400).repeat(4),
        torch.arange(1600) * 7 % 10,
        torch.ones(1600),
        [400] * 4,
        Table(torch.zeros(400, 10)),
        log_probs=torch.full((1600,), 0.1, dtype=torch.float64).log(),
        final=torch.full((4,), 400),
        terminated=torch.zeros(4).bool(),
    )
    assert value(estimator(x, groups=2)) == pytest.approx(400, rel=0.01)
    if estimator is tabular_marginal:
        assert value(estimator(x, groups=2)) == pytest.approx(400)


@pytest.mark.parametrize("estimator", [tabular_marginal, BY_TIME, kernel_marginal])
def test_episodes_that_are_cut_end_there(estimator):
    """The value is up to where logged episodes end, also where they did not terminate."""
    given = problem(5)
    truth = true_value(given, horizon=8, discount=1.0, cut=0.2)
    beyond = true_value(given, horizon=8, discount=1.0)
    x = simulated(given, 5, episodes=1500, horizon=8, cut=0.2, discount=1.0)
    found = estimator(x, groups=10)
    assert abs(truth - beyond) > 10 * standard_error(found)
    assert abs(value(found) - truth) < 4 * standard_error(found)


@each
def test_the_standard_error_is_the_spread_over_logs(estimator):
    given = problem(6)
    found = [
        estimator(simulated(given, seed, episodes=30, horizon=4), groups=10) for seed in range(25)
    ]
    spread = torch.tensor([value(x) for x in found]).std()
    errors = torch.tensor([standard_error(x) for x in found])
    assert 0.7 < float(errors.mean() / spread) < 1.7


@each
def test_what_is_diagnosed_has_mean_one(estimator):
    given = problem(7, ending=0.4)
    x = simulated(given, 7, episodes=2000, horizon=6)
    weights = estimator(x, groups=2).diagnosed.exp()
    assert abs(float(weights.mean()) - 1) < 4 * float(weights.std()) / len(weights) ** 0.5
    if estimator is not kernel_marginal:
        assert len(weights) == x.segments.size


@pytest.mark.parametrize("estimator", [linear_marginal, kernel_marginal])
def test_only_so_many_steps_are_looked_at(estimator):
    x = simulated(problem(1, ending=0.4), 8, episodes=200, horizon=9)
    found = estimator(x, most_steps=120, groups=4)
    assert len(found.diagnosed) <= 120
    torch.manual_seed(0)
    state = torch.get_rng_state()
    again = estimator(x, most_steps=120, groups=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(again.plain, found.plain)


def test_one_long_episode_does_not_make_the_table_large():
    lengths = [1000] + [1] * 500
    size = sum(lengths)
    x = logged(
        torch.randn(size, 1, generator=torch.Generator().manual_seed(1)),
        torch.arange(size) % 2,
        torch.ones(size),
        lengths,
        _Climber(),
    )
    few = state_marginal._dense(x, 2000)
    assert len(few) * few.segments.most_steps <= 5 * 2000
    assert state_marginal._dense(x, 200_000) is x


@each
def test_what_cannot_be_estimated_is_refused(estimator):
    x = simulated(problem(1), 1, episodes=6, horizon=3)
    with pytest.raises(ValueError, match="behaviour's log-probabilities"):
        estimator(without_behaviour(x))


def test_what_a_table_or_a_kernel_cannot_do_is_refused():
    with pytest.raises(ValueError, match=r"float32 of shape \[1\].*linear"):
        tabular_marginal(chain(1, episodes=3, horizon=4))
    size = 6000
    many = logged(
        torch.arange(size), torch.arange(size) % 2, torch.ones(size), [1000] * 6, _Climber()
    )
    with pytest.raises(ValueError, match="6000 states and 1000 times"):
        tabular_marginal(many)
    with pytest.raises(ValueError, match="at least 2 must"):
        kernel_marginal(simulated(problem(1), 1, episodes=2, horizon=3))
    for name, estimator in (("count", linear_marginal), ("landmarks", kernel_marginal)):
        with pytest.raises(ValueError, match=name):
            estimator(simulated(problem(1), 1, episodes=6, horizon=3), **{name: 0})


def balance_heuristic(log, *, sources):
    return with_sources(recipes.balance_heuristic, sources)(log)


def two_sources(**changes):
    """Populations of two behaviours, twice as many episodes of the second."""
    first, second = population().log, population(behaviour=((2, 2), (3, 1))).log
    batches = [first.batch, second.batch, second.batch]
    joined = {
        name: torch.cat([getattr(batch, name) for batch in batches])
        for name in batches[0].__dataclass_fields__
        if name != "segments"
    }
    versions = [torch.full((len(b),), v) for b, v in zip(batches, (3, 8, 8), strict=True)]
    joined["policy_version"] = torch.cat(versions)
    lengths = torch.cat([batch.segments.lengths for batch in batches])
    joined["segments"] = Segments.packed(lengths)
    joined["episode"] = torch.arange(len(lengths))
    batch = type(first.batch)(**(joined | changes))
    return Logged.of(batch, first.policy, discount=DISCOUNT)


def source(quarters):
    return Table((torch.tensor(quarters).double() / 4).log())


SOURCES = {8: source([[2, 2], [3, 1]]), 3: source(BEHAVIOUR)}


def test_against_the_mixture_the_expectation_is_the_value():
    x, truth = two_sources(), population().value
    found = balance_heuristic(x, sources=SOURCES)
    assert value(found) == pytest.approx(truth, rel=1e-9)
    close(found.diagnosed.exp().mean(), 1.0, 1e-9)
    assert standard_error(found) < standard_error(recipes.per_decision.terms(x.sample))
    per_source = balanced(
        x.sample.log_prob_target,
        torch.stack([SOURCES[3](x.batch.observations).log_prob(x.batch.actions)] * 2),
        torch.tensor([0.5, 0.5]).double(),
        x.segments,
    )
    assert not torch.allclose(x.segments.last(per_source), found.diagnosed)


def test_a_source_that_is_the_target_bounds_the_weights():
    batch = population().log.batch
    x = two_sources()
    mine = Table(TARGET.log())
    log_probs = torch.where(
        x.batch.policy_version == 3,
        mine(x.batch.observations).log_prob(x.batch.actions),
        x.batch.log_prob_behaviour,
    )
    y = two_sources(log_prob_behaviour=log_probs)
    weights = balance_heuristic(y, sources={3: mine, 8: SOURCES[8]}).diagnosed
    share = len(batch.terminated) / len(y)
    assert float(weights.max()) <= -torch.tensor(share).log() + 1e-9


def test_one_source_is_per_decision():
    x = simulated(problem(1, ending=0.4), 9, episodes=20, horizon=6)
    behaviour = Table(problem(1, ending=0.4).behaviour)
    for sources in ([behaviour], {0: behaviour, 5: x.policy}):
        found, want = balance_heuristic(x, sources=sources), recipes.per_decision.terms(x.sample)
        close(found.plain, want.plain, 1e-10)
        close(found.diagnosed, want.diagnosed, 1e-10)
    # Nothing needs to be recorded: the sources say it.
    y = without_behaviour(x)
    close(balance_heuristic(y, sources=[behaviour]).plain, want.plain, 1e-10)


def test_sources_that_cannot_be_are_refused():
    x = two_sources()
    with pytest.raises(ValueError, match=r"policies \[8\], and sources holds \[3\]"):
        balance_heuristic(x, sources={3: SOURCES[3]})
    with pytest.raises(ValueError, match=r"policies \[3, 8\], and sources holds \[0, 1\]"):
        balance_heuristic(x, sources=[SOURCES[3], SOURCES[8]])
    with pytest.raises(ValueError, match=r"source 3 gives log-probability .* episode 0, step 0"):
        balance_heuristic(x, sources={3: SOURCES[8], 8: SOURCES[3]})
    versions = x.batch.policy_version.clone()
    episode = int((x.segments.lengths == 3).nonzero()[4])
    versions[x.segments.stop[episode] - 1] = 8
    with pytest.raises(
        ValueError, match=rf"episode {episode} policy 8 took over .* step 2.*use per_decision"
    ):
        balance_heuristic(two_sources(policy_version=versions), sources=SOURCES)
