"""Estimators on problems whose values are known: no bias, and the error that theory gives.

Each case is many logs of one problem. Over them, the mean of the estimates is the exact value to
within three standard errors, `n` times the mean squared error is the exact variance whatever `n`
is, and the standard errors are the spread of the estimates. All seeds are fixed.
"""

import math
from dataclasses import replace
from functools import cache, partial
from itertools import product

import numpy as np
import pytest
import torch
from data_samples import assert_same_bits
from exact import Model, variances
from problems import PROBLEMS, alike, ending, improvable, long_chain, model_fail, model_win, taxi

from reweigh.core.terms import influence, totals
from reweigh.data import Batch, Trajectories
from reweigh.evaluation.critics import linear_critic, tabular_critic
from reweigh.evaluation.logged import Logged
from reweigh.evaluation.methods import direct_method, estimator_of, with_critic, with_sources
from reweigh.evaluation.policies import log_prob
from reweigh.evaluation.state_marginal import (
    kernel_marginal,
    linear_marginal,
    tabular_marginal,
)
from reweigh.recipes import VALUES

MEANS = ("behaviour", "importance_sampling", "per_decision")
RATIOS = ("weighted_importance_sampling", "weighted_per_decision")
WEIGHTED = (*MEANS, *RATIOS, "pareto_smoothed")
ROBUST = ("doubly_robust", "weighted_doubly_robust")


def squares(x):
    """Of the linear-quadratic problem's states and action: its action values are linear in them."""
    return torch.einsum("bi,bj->bij", x, x)[:, *torch.triu_indices(3, 3)]


def fit_quickly(fitted, evaluated):
    """A table where there can be one, else the features that are enough."""
    numbers = not fitted.batch.observations.is_floating_point()
    critic = tabular_critic if numbers else linear_critic(features=squares, ridge=1e-6)
    return critic(fitted, evaluated)


ESTIMATORS = {
    **{name: estimator_of(VALUES[name]) for name in WEIGHTED},
    **{name: with_critic(VALUES[name], critic=fit_quickly) for name in ROBUST},
    # Fitted again without half the log: that costs little, and only the value is looked at.
    **{f.__name__: partial(f, groups=2) for f in (direct_method, tabular_marginal)},
    **{f.__name__: partial(f, groups=2) for f in (linear_marginal, kernel_marginal)},
}


# name: (problem, episodes of a small log, how many logs)
CASES = {
    "ModelWin": (partial(model_win, horizon=6), 400, 120),
    "ModelFail": (model_fail, 400, 120),
    "Taxi": (partial(taxi, horizon=15, mixed=0.2), 100, 60),
    "LinearQuadratic": (PROBLEMS["linear_quadratic"], 100, 120),
    "Ending": (ending, 100, 120),
    "LongChain": (partial(long_chain, tilt=0.01), 25, 40),
}


def sample(problem, episodes, seed):
    log = problem.sample(episodes, seed=seed)
    return Logged.of(Batch.of(log), problem.policy(), discount=problem.discount)


@cache
def problem_of(name):
    return CASES[name][0]()


@cache
def exact(name):
    return variances(problem_of(name))


def logs(name, times, count):
    """Independent logs of one problem, `times` as long as the small ones, a few at a time."""
    episodes = CASES[name][1] * times
    for first in range(0, count, 20):
        together = min(20, count - first)
        some = sample(problem_of(name), episodes * together, seed=1000 * times + first)
        for part in torch.arange(len(some)).split(episodes):
            yield some.select(part)


@cache
def all_estimates(name, estimators, times, count):
    """The estimates of each log, and their standard errors, by estimator."""
    found = {estimator: [] for estimator in estimators}
    for part in logs(name, times, count):
        for estimator in estimators:
            terms = ESTIMATORS[estimator](part)
            whole = totals(terms)
            error = influence(terms, whole).std() / math.sqrt(len(part))
            found[estimator].append((float(whole.value), float(error)))
    return {estimator: np.array(rows).T for estimator, rows in found.items()}


def estimates(name, estimator, times=1, count=None):
    """Exact value, the estimates of the logs, their standard errors, episodes of a log."""
    together = WEIGHTED if estimator in WEIGHTED else (estimator,)
    found = all_estimates(name, together, times, count or CASES[name][2])
    problem = problem_of(name)
    truth = problem.behaviour_value() if estimator == "behaviour" else problem.value()
    return truth, *found[estimator], CASES[name][1] * times


def by_name(estimators, without=""):
    cases = [(name, one) for name in CASES if name != without for one in estimators]
    return pytest.mark.parametrize(("name", "estimator"), cases)


@by_name((*MEANS, *RATIOS))
def test_the_mean_over_logs_is_the_exact_value(name, estimator):
    truth, values, _, _ = estimates(name, estimator, times=4 if estimator in RATIOS else 1)
    assert abs(values.mean() - truth) < 3 * values.std() / math.sqrt(len(values))


@pytest.mark.parametrize("times", [1, 4])
@by_name((*MEANS, *RATIOS), without="LinearQuadratic")
def test_the_mean_squared_error_is_the_exact_variance(name, estimator, times):
    truth, values, _, n = estimates(name, estimator, times)
    scaled = n * (values - truth) ** 2
    assert abs(scaled.mean() - exact(name)[estimator]) < 3 * scaled.std() / math.sqrt(len(values))


@by_name((*MEANS, *RATIOS))
def test_the_mean_squared_error_falls_with_the_number_of_episodes(name, estimator):
    means, spreads = [], []
    for times in (1, 4):
        truth, values, _, n = estimates(name, estimator, times)
        scaled = n * (values - truth) ** 2
        means.append(scaled.mean())
        spreads.append(scaled.std() / math.sqrt(len(values)))
    assert abs(means[0] - means[1]) < 3 * math.hypot(*spreads)


@by_name((*MEANS, *RATIOS))
def test_standard_errors_are_the_spread_of_the_estimates(name, estimator):
    _, values, errors, _ = estimates(name, estimator, times=4)
    spread = math.sqrt((errors**2).mean())
    assert values.std() == pytest.approx(spread, rel=3.5 / math.sqrt(2 * len(values)))


@pytest.mark.parametrize("estimator", ROBUST)
@pytest.mark.parametrize("name", ["ModelWin", "ModelFail", "LinearQuadratic", "Ending"])
def test_a_fitted_critic_leaves_no_bias_and_the_error_of_the_true_values(name, estimator):
    count = 30 if name == "LinearQuadratic" else 60
    truth, values, errors, n = estimates(name, estimator, times=4, count=count)
    assert abs(values.mean() - truth) < 3 * values.std() / math.sqrt(len(values))
    spread = math.sqrt((errors**2).mean())
    assert values.std() == pytest.approx(spread, rel=3.5 / math.sqrt(2 * len(values)))
    if name in ("ModelWin", "Ending"):  # fitted to what is all there is to know of a state
        scaled = n * (values - truth) ** 2
        least = exact(name)["doubly_robust"]
        assert abs(scaled.mean() - least) < 3 * scaled.std() / math.sqrt(len(values)) + 0.05 * least


@pytest.mark.parametrize(
    ("name", "estimator"),
    [
        ("ModelWin", "direct_method"),
        ("ModelWin", "tabular_marginal"),
        ("Ending", "direct_method"),
        ("Ending", "tabular_marginal"),
        ("Ending", "linear_marginal"),
    ],
)
def test_estimators_that_know_the_states_reach_what_states_allow(name, estimator):
    """Their error is that of the efficient bound: no product of ratios is in it."""
    truth, values, _, n = estimates(name, estimator, times=4, count=50)
    assert abs(values.mean() - truth) < 3 * values.std() / math.sqrt(len(values))
    scaled = n * (values - truth) ** 2
    least = exact(name)["marginal"]
    assert abs(scaled.mean() - least) < 3 * scaled.std() / math.sqrt(len(values))
    assert scaled.mean() < exact(name)["weighted_per_decision"]


@pytest.mark.parametrize("estimator", ["direct_method", "linear_marginal", "kernel_marginal"])
def test_estimators_that_approximate_states_are_near(estimator):
    truth, values, _, _ = estimates("LinearQuadratic", estimator, times=1, count=15)
    assert abs(values.mean() - truth) < 3 * values.std() / math.sqrt(len(values))
    assert values.std() < 0.5


def test_a_model_of_what_is_seen_fails_where_states_look_alike():
    for estimator in ("direct_method", "tabular_marginal"):
        truth, values, _, _ = estimates("ModelFail", estimator, times=1, count=20)
        assert abs(values.mean() - truth) > 5 * values.std()


def test_a_log_of_two_policies_is_weighed_against_both():
    """Half the episodes are the target's own; the other half weigh more than fifty at times."""
    problem = model_fail()
    parts = []
    for version, source in enumerate((problem, replace(problem, behaviour=problem.target))):
        log = source.sample(4000, seed=version)
        parts.append(
            replace(
                log,
                policy_version=log.policy_version + version,
                episode=log.episode + 4000 * version,
            )
        )
    whole = Batch.of(Trajectories.concatenate(parts))
    s = Logged.of(whole, problem.policy(), discount=problem.discount)
    sources = [problem.behaviour_policy(), problem.policy()]
    terms = with_sources(VALUES["balance_heuristic"], sources)(s)
    alone = VALUES["per_decision"].terms(s.sample)
    error, error_alone = (float(t.plain.std()) / math.sqrt(len(s)) for t in (terms, alone))
    assert abs(float(terms.plain.mean()) - problem.value()) < 3 * error
    assert error < 0.4 * error_alone
    assert float(terms.diagnosed.max()) <= math.log(2) + 1e-12


@pytest.mark.parametrize("name", ["ModelWin", "LinearQuadratic", "Ending"])
def test_smoothed_weights_give_the_value_with_a_smaller_error(name):
    truth, values, errors, _ = estimates(name, "pareto_smoothed", times=4)
    _, plain, _, _ = estimates(name, "weighted_importance_sampling", times=4)
    assert abs(values.mean() - truth) < 3 * errors.mean() / math.sqrt(len(values))
    assert ((values - truth) ** 2).mean() < 1.05 * ((plain - truth) ** 2).mean()


@pytest.mark.parametrize("maximum", [1.0, 10.0, 60.0])
def test_truncated_terms_have_their_exact_expectation_which_is_not_above_the_value(maximum):
    problem, lowest = model_fail(), -1.0
    expected = sum(
        chance * (lowest + min(weights[-1], maximum) * (rewards.sum() - lowest))
        for chance, weights, rewards in episodes(problem)
    )
    truncated = VALUES["truncated_importance_sampling"].bind(maximum=maximum, lowest_return=lowest)
    terms = truncated.terms(sample(problem, 20_000, 5).sample)
    error = float(terms.plain.std()) / math.sqrt(len(terms))
    assert abs(float(terms.plain.mean()) - expected) < 3 * error
    assert expected <= problem.value() + 1e-12
    assert expected == pytest.approx(problem.value()) or maximum < 53


def episodes(problem):
    """Every episode: its chance, its weights and discounted rewards at each time of the horizon."""
    model, states, h = Model.of(problem), len(problem.start), problem.horizon
    stack = [(p, s, 1.0, [], []) for s, p in enumerate(problem.start)]
    while stack:
        chance, state, weight, weights, rewards = stack.pop()
        if len(rewards) == h or state == states:
            short = h - len(rewards)
            yield chance, np.array(weights + [weight] * short), np.array(rewards + [0.0] * short)
            continue
        for action, outcome in product(*map(range, problem.outcomes.shape[1:])):
            b, p = model.behaviour[state, action], model.target[state, action]
            now = weight * p / b
            reward = problem.discount ** len(rewards) * problem.rewards[state, action, outcome]
            stack.append(
                (
                    chance * b * problem.chances[state, action, outcome],
                    problem.outcomes[state, action, outcome],
                    now,
                    [*weights, now],
                    [*rewards, reward],
                )
            )


@pytest.mark.parametrize(
    "problem",
    [ending(3, states=2, actions=2, horizon=4, chance=0.6, away=1.0), model_fail()],
    ids=["Ending", "ModelFail"],
)
def test_recursions_are_sums_over_all_episodes(problem):
    chance, w, r = (np.array(x) for x in zip(*episodes(problem), strict=True))
    assert chance.sum() == pytest.approx(1, abs=1e-12)
    weight, returns, mean = w[:, -1], r.sum(1), chance @ (w * r)
    value = mean.sum()
    assert problem.value() == pytest.approx(value, abs=1e-12)
    assert problem.behaviour_value() == pytest.approx(chance @ returns, abs=1e-12)
    want = {
        "behaviour": chance @ (returns - chance @ returns) ** 2,
        "importance_sampling": chance @ (weight * returns - value) ** 2,
        "per_decision": chance @ ((w * r).sum(1) - value) ** 2,
        "weighted_importance_sampling": chance @ (weight * (returns - value)) ** 2,
        "weighted_per_decision": chance @ ((w * (r - mean)).sum(1)) ** 2,
    }
    found = variances(problem)
    assert {name: found[name] for name in want} == pytest.approx(want, abs=1e-10)


def test_bounds_are_below_what_any_estimator_reaches():
    found = variances(ending())
    assert found["marginal"] < found["doubly_robust"] < found["weighted_per_decision"]
    on_policy = replace(ending(), target=ending().behaviour)
    found = variances(on_policy)
    assert found["per_decision"] == pytest.approx(found["behaviour"])
    # Even then, values take away the chance that lies in the choice of actions.
    assert found["doubly_robust"] == pytest.approx(found["marginal"])
    assert found["marginal"] < found["behaviour"]


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_log_is_what_a_log_must_be(name):
    problem = PROBLEMS[name]()
    log, again = (problem.sample(300, seed=4) for _ in range(2))
    log.validate(problem.schema)
    assert_same_bits(log, again)
    assert log.rewards.sum() != problem.sample(300, seed=5).rewards.sum()
    assert (log.terminated ^ log.truncated).all() and log.lengths.max() <= problem.horizon
    assert (log.lengths[log.truncated] == problem.horizon).all()
    batch = Batch.of(log)
    assert (
        float((log_prob(problem.behaviour_policy(), batch) - batch.log_prob_behaviour).abs().max())
        < 1e-12
    )
    returns = Logged.of(batch, problem.policy(), discount=problem.discount).sample.returns
    error = float(returns.std()) / math.sqrt(len(returns))
    assert abs(float(returns.mean()) - problem.behaviour_value()) < 3 * error


@pytest.mark.parametrize("make", [ending, partial(taxi, horizon=6)], ids=["Ending", "Taxi"])
def test_states_are_visited_as_the_flow_says(make):
    problem, episodes = make(), 20_000
    log, flow = problem.sample(episodes, seed=6), Model.of(problem)
    time = np.arange(log.steps) - np.repeat(log.start, log.lengths)
    at = np.zeros((problem.horizon, len(problem.start) + 1))
    np.add.at(at, (time, log.observations), 1 / episodes)
    want = flow.flow(flow.behaviour)[:, :-1]
    error = np.sqrt(want * (1 - want) / episodes)
    assert (np.abs(at[:, :-1] - want) < 5 * error + 1e-3 * (want < 1e-3)).all()


def test_the_linear_quadratic_value_is_that_of_the_covariance_going_forward():
    p = PROBLEMS["linear_quadratic"]()
    for gain in (p.target, p.behaviour):
        moves, value = p.a + p.b @ gain, 0.0
        second = p.start**2 * np.eye(2)
        for t in range(p.horizon):
            acting = gain @ second @ gain.T + p.deviation**2
            value -= p.discount**t * (np.trace(p.q @ second) + float((p.r @ acting).item()))
            second = (
                moves @ second @ moves.T + p.deviation**2 * p.b @ p.b.T + p.noise**2 * np.eye(2)
            )
        assert p.value_of(gain) == pytest.approx(value, abs=1e-12)


def test_values_that_can_be_told_without_a_computer():
    assert model_fail().value() == pytest.approx(0.12 - 0.88)
    # Ten visits of the first state, each worth p(1)·0.2 - p(0)·0.2.
    assert model_win().value() == pytest.approx(10 * 0.2 * (0.73 - 0.27))
    assert long_chain().value() == pytest.approx(400)
    assert alike().value() == pytest.approx(alike().behaviour_value())
    better = improvable()
    assert better.value() == pytest.approx(1.2 * better.behaviour_value())
    assert better.value() == max(better.value_of(better.best()), better.value())


def test_the_taxi_is_the_taxi():
    problem = taxi()
    assert problem.outcomes.shape == (2000, 6, 48)
    assert problem.chances.sum(2) == pytest.approx(1)
    full = 2 + 5 * (0b0001 + 16 * 0)  # at the first corner, one waits there, driving to the third
    down = np.unique(problem.outcomes[full, 0] // 80)
    assert down.tolist() == [5]  # one row down
    picked = set((problem.outcomes[full, 4] % 5).tolist())
    assert picked == {1, 2, 3} and (problem.rewards[full, 4] == -1).all()
    there = 2 + 5 * (0 + 16 * 20)  # at the third corner, driving to it
    assert (problem.rewards[there, 5] == 20).all() and (problem.outcomes[there, 5] % 5 == 4).all()
    assert (problem.rewards[full, 5] == -1).all() and (problem.outcomes[full, 5] % 5 == 4).all()
    # Who comes in a step to the four corners where nobody waits: everybody with 0.3·0.05·0.1·0.2.
    empty = 4 + 5 * (0 + 16 * 12)
    everybody = problem.outcomes[empty, 0] // 5 % 16 == 15
    assert problem.chances[empty, 0][everybody].sum() == pytest.approx(0.3 * 0.05 * 0.1 * 0.2)
