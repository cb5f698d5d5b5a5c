"""What other systems return: their formulas written down again, as loops, beside the estimators.

Where a system is right, both give the same number on random data. Where it is not, the test says
what its formula returns, what ours returns on the same data, and what is true: it backs a row of
the table in docs/evaluation.md.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from exact import Model
from problems import ending
from scipy import stats
from simulated import Problem, tabular_policy

import reweigh as rw
from reweigh.core.diagnostics import effective_sample_size
from reweigh.core.segments import Segments
from reweigh.core.terms import Terms, influence, totals
from reweigh.data import Batch, Trajectories
from reweigh.evaluation import logged
from reweigh.evaluation.critics import CriticValues
from reweigh.evaluation.intervals import Evidence, bootstrap, hoeffding, student_t
from reweigh.evaluation.methods import with_critic
from reweigh.recipes.values import doubly_robust, weighted_doubly_robust


@dataclass(frozen=True)
class Logged:
    """Episodes as lists of arrays, which is what the loops read."""

    rewards: list[np.ndarray]
    target: list[np.ndarray]
    """Probabilities of the logged actions."""
    behaviour: list[np.ndarray]
    gamma: float

    @property
    def ratios(self):
        return [p / b for p, b in zip(self.target, self.behaviour, strict=True)]

    @property
    def returns(self):
        return np.array([discounted(r, self.gamma) for r in self.rewards])

    @property
    def sample(self):
        def packed(x):
            return torch.from_numpy(np.concatenate(x))

        return rw.Sample(
            packed(self.target).log(),
            packed(self.behaviour).log(),
            Segments.packed([len(r) for r in self.rewards]),
            packed(self.rewards),
            self.gamma,
        )


def random_log(lengths, seed, gamma=0.9, spread=0.9):
    rng = np.random.default_rng(seed)
    return Logged(
        [rng.standard_normal(n) for n in lengths],
        [1 - spread * rng.random(n) for n in lengths],
        [1 - spread * rng.random(n) for n in lengths],
        gamma,
    )


RAGGED = [random_log([4, 1, 7, 2, 7, 3], seed) for seed in range(3)]
EQUAL = [random_log([5] * 6, seed) for seed in range(3)]


def discounted(rewards, gamma):
    return sum(gamma**t * float(r) for t, r in enumerate(rewards))


def value(recipe, sample):
    return float(recipe.estimate(sample))


def evidence(terms):
    whole = totals(terms)
    return Evidence(float(whole.value), influence(terms, whole), lambda: [terms])


def exactly(x):
    return pytest.approx(x, rel=1e-12, abs=1e-12)


# Where they are right.


def cobs(log):
    """COBS `TraditionalIS`: naive, IS, PDIS, WIS, PDWIS; a finished episode keeps its weight."""
    n, horizon = len(log.rewards), max(map(len, log.rewards))
    weights = [np.cumprod(r) for r in log.ratios]
    sums = [sum(w[min(t, len(w) - 1)] for w in weights) for t in range(horizon)]
    trajectory = [w[-1] * g for w, g in zip(weights, log.returns, strict=True)]
    per_decision = by_sum = 0.0
    for w, rewards in zip(weights, log.rewards, strict=True):
        for t, r in enumerate(rewards):
            per_decision += log.gamma**t * w[t] * r / n
            by_sum += log.gamma**t * w[t] * r / sums[t]
    return {
        "behaviour": sum(log.returns) / n,
        "importance_sampling": sum(trajectory) / n,
        "per_decision": per_decision,
        "weighted_importance_sampling": sum(trajectory) / sum(w[-1] for w in weights),
        "weighted_per_decision": by_sum,
    }


@pytest.mark.parametrize("log", RAGGED)
def test_cobs(log):
    for name, theirs in cobs(log).items():
        assert value(rw.recipes.VALUES[name], log.sample) == exactly(theirs)


def scope_rl(log, epsilon=0.0):
    """SCOPE-RL: TIS, PDIS and their self-normalised forms, for episodes of one length.

    Its `epsilon` is 1e-10, in the denominators.
    """
    target, behaviour = (np.cumprod(np.stack(x), 1) for x in (log.target, log.behaviour))
    step, rewards = target / behaviour, np.stack(log.rewards)
    discount = log.gamma ** np.arange(rewards.shape[1])
    trajectory = step[:, -1:]
    return {
        "importance_sampling": (discount * trajectory * rewards).sum(1).mean(),
        "per_decision": (discount * step * rewards).sum(1).mean(),
        "weighted_importance_sampling": (
            discount * trajectory / (trajectory.mean(0) + epsilon) * rewards
        ).sum(1).mean(),
        "weighted_per_decision": (
            discount * step / (step.mean(0) + epsilon) * rewards
        ).sum(1).mean(),
    }  # fmt: skip


@pytest.mark.parametrize("log", EQUAL)
def test_scope_rl_on_short_episodes_of_one_length(log):
    for name, theirs in scope_rl(log).items():
        assert value(rw.recipes.VALUES[name], log.sample) == exactly(theirs)


def rllib(log):
    """RLlib, old stack: `ImportanceSampling` is per decision; `Weighted...` divides by the mean
    weight of the episodes that reached the step, then averages over all episodes."""
    horizon, n = max(map(len, log.rewards)), len(log.rewards)
    weights = [np.cumprod(r) for r in log.ratios]
    reached = [np.mean([w[t] for w in weights if len(w) > t]) for t in range(horizon)]
    per_decision = by_reached = 0.0
    for w, rewards in zip(weights, log.rewards, strict=True):
        for t, r in enumerate(rewards):
            per_decision += log.gamma**t * w[t] * r / n
            by_reached += log.gamma**t * w[t] / reached[t] * r / n
    return per_decision, by_reached


@pytest.mark.parametrize("log", RAGGED + EQUAL)
def test_rllib_per_decision(log):
    assert value(rw.recipes.per_decision, log.sample) == exactly(rllib(log)[0])


@pytest.mark.parametrize("log", EQUAL)
def test_rllib_weighted_on_episodes_of_one_length(log):
    assert value(rw.recipes.weighted_per_decision, log.sample) == exactly(rllib(log)[1])


@dataclass(frozen=True)
class WithValues:
    """Episodes in which every step has a state of its own, and values of all states and actions."""

    log: Logged
    episodes: logged.Logged
    q: np.ndarray
    """`[S, A]`."""
    v: np.ndarray
    """`[S]`: under the target."""
    taken: np.ndarray
    """`[S]`: of the logged action."""

    @property
    def steps(self):
        """Of each episode: rewards, ratios, values, action values."""
        cuts = np.cumsum([len(r) for r in self.log.rewards])[:-1]
        return list(
            zip(
                self.log.rewards,
                self.log.ratios,
                np.split(self.v, cuts),
                np.split(self.taken, cuts),
                strict=True,
            )
        )

    def critic(self, _, asked):
        """Knows the values beforehand."""
        q = torch.from_numpy(self.q)
        observations, actions = asked.batch.observations, asked.batch.actions
        v, taken = torch.from_numpy(self.v)[observations], q[observations, actions]
        return CriticValues(v, taken)

    def robust(self, recipe=doubly_robust):
        return with_critic(recipe, critic=self.critic)(self.episodes)


def with_values(lengths, seed, *, gamma=0.9, actions=3, rewards=None, q=None):
    rng, size = np.random.default_rng(seed), sum(lengths)
    behaviour, target = (rng.dirichlet(np.ones(actions), size) for _ in range(2))
    states, n = np.arange(size), len(lengths)
    chosen = (behaviour.cumsum(1) < rng.random((size, 1))).sum(1)
    rewards = rng.standard_normal(size) if rewards is None else rewards
    q = rng.standard_normal((size, actions)) if q is None else q
    log = Trajectories(
        observations=states,
        actions=chosen,
        rewards=rewards,
        log_prob_behaviour=np.log(behaviour[states, chosen]),
        lengths=np.array(lengths),
        final_observations=np.zeros(n, dtype=np.int64),
        terminated=np.ones(n, dtype=bool),
        truncated=np.zeros(n, dtype=bool),
        policy_version=np.zeros(n, dtype=np.int64),
        episode=np.arange(n),
        seed=np.arange(n),
        time_start=np.zeros(n, dtype=np.int64),
    )
    cuts = np.cumsum(lengths)[:-1]
    columns = (rewards, target[states, chosen], behaviour[states, chosen])
    return WithValues(
        Logged(*(np.split(x, cuts) for x in columns), gamma),
        logged.Logged.of(Batch.of(log), tabular_policy(target), discount=gamma),
        q,
        (target * q).sum(1),
        q[states, chosen],
    )


def backwards(rewards, ratios, values, action_values, gamma):
    """RLlib, COBS: `D = V + ρ (r + γ D' - Q)`, from the last step to the first."""
    robust = 0.0
    for t in reversed(range(len(rewards))):
        robust = values[t] + ratios[t] * (rewards[t] + gamma * robust - action_values[t])
    return robust


def forwards(rewards, ratios, values, action_values, gamma):
    """SCOPE-RL: `Σ_t γ^t [w_t (r_t - Q_t) + w_{t-1} V_t]`."""
    robust, before = 0.0, 1.0
    for t, ratio in enumerate(ratios):
        now = before * ratio
        robust += gamma**t * (now * (rewards[t] - action_values[t]) + before * values[t])
        before = now
    return robust


@pytest.mark.parametrize("form", [backwards, forwards])
@pytest.mark.parametrize("seed", range(3))
def test_doubly_robust_of_rllib_cobs_and_scope_rl(seed, form):
    x = with_values([4, 1, 7, 2, 7, 3], seed)
    theirs = [form(*steps, x.log.gamma) for steps in x.steps]
    assert x.robust().plain.tolist() == pytest.approx(theirs, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_scope_rl_self_normalised_doubly_robust(seed):
    """`forwards` with each time's weights over their mean, for episodes of one length."""
    x = with_values([5] * 6, seed)
    weights = np.stack([np.cumprod(ratios) for _, ratios, _, _ in x.steps])
    weights = np.hstack([np.ones((6, 1)), weights / weights.mean(0)])
    theirs = 0.0
    for i, (rewards, _, v, q) in enumerate(x.steps):
        for t in range(5):
            now, before = weights[i, t + 1], weights[i, t]
            theirs += 0.9**t * (now * (rewards[t] - q[t]) + before * v[t]) / 6
    assert float(totals(x.robust(weighted_doubly_robust)).value) == exactly(theirs)


@pytest.mark.parametrize("seed", range(3))
def test_obp_on_one_step(seed):
    log = random_log([1] * 9, seed)
    r, rho = np.concatenate(log.rewards), np.concatenate(log.ratios)
    sample = log.sample
    assert value(rw.recipes.importance_sampling, sample) == exactly((rho * r).mean())  # IPW
    lowest = float(r.min())  # IPW with lambda_, of rewards counted from the lowest
    clipped = lowest + (np.minimum(rho, 0.8) * (r - lowest)).mean()
    truncated = rw.recipes.truncated_importance_sampling.bind(maximum=0.8, lowest_return=lowest)
    assert value(truncated, sample) == exactly(clipped)
    self_normalised = (rho * r).sum() / rho.sum()  # SNIPW
    assert value(rw.recipes.weighted_importance_sampling, sample) == exactly(self_normalised)
    x = with_values([1] * 9, seed)  # DR: Σ_a π q + w (r - q)
    r, rho = np.concatenate(x.log.rewards), np.concatenate(x.log.ratios)
    assert x.robust().plain.numpy() == pytest.approx(x.v + rho * (r - x.taken), abs=1e-12)
    shares = rho / rho.sum()  # SNDR
    assert float(totals(x.robust(weighted_doubly_robust)).value) == exactly(
        x.v.mean() + (shares * (r - x.taken)).sum()
    )


# Where they are not.


def test_probabilities_multiplied_before_they_are_divided_underflow():
    """SCOPE-RL multiplies the probabilities of each policy first: 10⁻⁴⁰⁰ is 0, and 0/0 is nan."""
    for steps, theirs in ((200, 200.0), (400, math.nan)):
        tenth = [np.full(steps, 0.1) for _ in range(3)]
        log = Logged([np.ones(steps) for _ in range(3)], tenth, tenth, 1.0)
        with np.errstate(invalid="ignore"):
            found = scope_rl(log, epsilon=1e-10)
        for name, number in found.items():
            if name != "per_decision" or steps == 200:
                assert number == pytest.approx(theirs, nan_ok=True)
            assert value(rw.recipes.VALUES[name], log.sample) == exactly(steps)
        assert math.isnan(found["per_decision"]) == (steps == 400)


def test_a_constant_in_the_denominator_is_an_answer_of_its_own():
    """SCOPE-RL adds 1e-10 to the mean weight: where all weights are smaller, all is shrunk to 0."""
    steps = 40  # each ratio is one half: the weights are 2⁻⁴⁰, about 1e-12, and all alike
    log = Logged([np.ones(steps)] * 5, [np.full(steps, 0.4)] * 5, [np.full(steps, 0.8)] * 5, 1.0)
    theirs = scope_rl(log, epsilon=1e-10)["weighted_importance_sampling"]
    assert theirs == pytest.approx(0.36, abs=0.01)
    assert value(rw.recipes.weighted_importance_sampling, log.sample) == exactly(40)


def test_a_hoeffding_interval_that_grows_with_the_sample():
    """SCOPE-RL: `max(x) sqrt(log(2/δ) / 2 * n)`, where `n` belongs under the fraction bar."""
    widths = []
    for n in (100, 10_000):
        x = torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        theirs = float(x.max()) * math.sqrt(math.log(2 / 0.05) / 2 * n)
        low, high = hoeffding(evidence(Terms(x, maximum_weight=1.0)), 0.95, lowest=0.0, highest=1.0)
        widths.append((theirs, (high - low) / 2))
    assert [theirs for theirs, _ in widths] == pytest.approx([13.6, 135.8], rel=0.02)
    assert [round(ours, 4) for _, ours in widths] == [0.1358, 0.0136]


def test_bounds_from_the_largest_term_break_where_all_terms_are_negative():
    """SCOPE-RL and OBP put the largest term seen in the place of the range."""
    x = -1 - torch.rand(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    half = 7 * float(x.max()) * math.log(2 / 0.05) / (3 * 199)  # the first part of their Bernstein
    half += math.sqrt(2 * math.log(2 / 0.05) * float(x.var()) / 199)
    assert float(x.max()) * math.sqrt(math.log(2 / 0.05) / (2 * 200)) < 0  # low above high
    assert 0 < half < 0.02  # a third of the t interval's
    low, high = student_t(evidence(Terms(x)), 0.95)
    assert (high - low) / 2 > 0.035
    low, high = hoeffding(evidence(Terms(x, maximum_weight=1.0)), 0.95, lowest=-2.0, highest=-1.0)
    assert low < -1.5 < high


def test_an_interval_with_the_quantile_of_one_side_covers_nine_in_ten():
    """SCOPE-RL: `t.ppf(1 - α)` on both sides."""
    x = torch.randn(4000, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    theirs, ours = 0, 0
    for row in x:
        half = stats.t.ppf(0.95, 19) * float(row.std()) / math.sqrt(20)
        low, high = student_t(evidence(Terms(row)), 0.95)
        theirs += abs(float(row.mean())) < half
        ours += low < 0 < high
    assert theirs / len(x) == pytest.approx(0.90, abs=0.015)
    assert ours / len(x) == pytest.approx(0.95, abs=0.011)


def test_resampling_what_was_normalised_before_ignores_the_normaliser():
    """SCOPE-RL and OBP bootstrap `w_i G_i / mean w`: its spread is not that of the estimate."""
    rng = np.random.default_rng(3)
    rho, n = np.exp(rng.standard_normal(400) - 0.5), 400
    returns = 10 + 0.1 * rng.standard_normal(n)  # hardly anything to estimate
    log = Logged(list(returns[:, None]), list(0.01 * rho[:, None]), [np.array([0.01])] * n, 1.0)
    terms = rw.recipes.weighted_importance_sampling.terms(log.sample)
    drawn = rng.integers(0, n, (2000, n))
    theirs = (rho * returns / rho.mean())[drawn].mean(1).std()
    low, high = bootstrap(evidence(terms), 0.95)
    again = (rho * returns)[drawn].sum(1) / rho[drawn].sum(1)  # normalised each time anew
    assert (high - low) / (2 * 1.96) == pytest.approx(again.std(), rel=0.05)
    assert evidence(terms).standard_error == pytest.approx(again.std(), rel=0.05)
    assert theirs > 60 * again.std()


def test_a_mean_over_the_episodes_that_got_there_takes_the_behaviours_lengths():
    """RLlib's weighted estimator, where a policy decides how long an episode lasts.

    Reward 1 a step. Action 1 ends the episode; the behaviour takes it half the time, the target one
    time in ten. What RLlib returns is the behaviour's value, on any sample.
    """
    problem = Problem(
        name="Lasting",
        start=np.ones(1),
        outcomes=np.array([[[0], [1]]]),
        chances=np.ones((1, 2, 1)),
        rewards=np.ones((1, 2, 1)),
        observed=np.zeros(2, dtype=np.int64),
        behaviour=np.array([[0.5, 0.5]]),
        target=np.array([[0.9, 0.1]]),
        horizon=4,
    )
    sample = rw.sample_of(problem.sample(2000, seed=1), problem.policy(), discount=1.0)
    cuts = sample.segments.stop.tolist()[:-1]
    columns = sample.rewards, sample.log_prob_target.exp(), sample.log_prob_behaviour.exp()
    log = Logged(*(np.split(x.numpy(), cuts) for x in columns), 1.0)
    assert rllib(log)[1] == exactly(log.returns.mean())
    assert problem.value() == pytest.approx(3.439) and problem.behaviour_value() == 1.875
    ours = evidence(rw.recipes.weighted_per_decision.terms(sample))
    assert ours.value == pytest.approx(3.439, abs=3 * ours.standard_error)
    assert ours.standard_error < 0.1


def test_a_doubly_robust_mean_that_leaves_out_episodes_without_return():
    """COBS `SeqDoublyRobust` averages over the episodes whose return is not 0."""
    pays = np.random.default_rng(5).random(2000) < 0.3  # one step: three in ten are paid 1
    x = with_values([1] * 2000, 5, actions=1, rewards=pays.astype(float), q=np.zeros((2000, 1)))
    robust = [backwards(*steps, 0.9) for steps in x.steps]
    theirs = np.mean([d for d, r in zip(robust, x.log.returns, strict=True) if abs(r) > 1e-6])
    assert theirs == exactly(1.0)
    assert float(totals(x.robust()).value) == exactly(pays.mean())
    assert pays.mean() == pytest.approx(0.3, abs=0.03)


WEIGHTED = (
    "importance_sampling",
    "per_decision",
    "weighted_importance_sampling",
    "weighted_per_decision",
    "pareto_smoothed",
)


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_where_the_policies_are_one_the_value_is_the_mean_return(gamma):
    """CRL fails this check of every estimator, with the true values or with any others.

    DR: no `γ^t` before the errors, and a value of the state after the last step of an episode that
    is over. WDR: a mean of terms whose weights already sum to 1.
    """
    n, steps, constant = 50, 5, 2.0
    log = random_log([steps] * n, 8, gamma=gamma)
    log = replace(log, target=log.behaviour)
    mean = log.returns.mean()
    for name in WEIGHTED:
        assert value(rw.recipes.VALUES[name], log.sample) == exactly(mean)
    # Values that are the same in every state: a poor critic, but a fair one.
    x = with_values([steps] * n, 8, gamma=gamma, actions=1, q=np.full((n * steps, 1), constant))
    for estimator in (doubly_robust, weighted_doubly_robust):
        ours = float(totals(x.robust(estimator)).value)
        assert ours == exactly(x.log.returns.mean())

    undiscounted = np.stack(log.rewards).sum(1).mean()
    errors = np.stack(log.rewards) + gamma * constant - constant
    theirs = (constant + errors.sum(1)).mean()
    assert theirs == exactly(undiscounted + constant + steps * constant * (gamma - 1))
    assert abs(theirs - mean) > 0.5
    weighted = (constant / n + (errors / n).sum(1)).mean()
    assert weighted == exactly(theirs / n)


def test_a_step_ratio_alone_leaves_the_behaviours_states():
    """CRL's "MIS" weighs each reward by its own step's ratio: it has no ratio of states."""
    problem = ending(2, away=1.5)
    log = problem.sample(20_000, seed=2)
    sample = rw.sample_of(log, problem.policy(), discount=problem.discount)
    theirs = evidence(
        Terms(sample.segments.total(sample.log_ratios.exp() * sample.discounted_rewards))
    )
    model = Model.of(problem)
    mean = (model.target * (model.chances * model.rewards).sum(2)).sum(1)
    by_time = model.flow(model.behaviour) @ mean
    limit = float(by_time @ problem.discount ** np.arange(problem.horizon))
    assert theirs.value == pytest.approx(limit, abs=3 * theirs.standard_error)
    assert abs(limit - problem.value()) > 8 * theirs.standard_error
    ours = evidence(rw.recipes.per_decision.terms(sample))
    assert ours.value == pytest.approx(problem.value(), abs=3 * ours.standard_error)


def test_ratios_of_actions_that_were_drawn_anew_are_not_those_of_the_log():
    """RLlib, new stack: the log-probability is of a freshly sampled action, and PDIS multiplies
    nothing up. Three steps, two actions, reward 1 for the second; behaviour even, target 0.8."""
    rng = np.random.default_rng(6)
    n = 100_000
    actions, fresh = rng.integers(0, 2, (n, 3)), (rng.random((n, 3)) < 0.8).astype(int)
    target = np.array([0.2, 0.8])
    rewards = actions.astype(float)
    ratios = target[fresh] / 0.5
    theirs = (ratios.prod(1) * rewards.sum(1)).mean(), (ratios * rewards).sum(1).mean()
    # E = (0.68 / 0.5)³ · 1.5 and 3 (0.68 / 0.5) · 0.5; the truth is 3 · 0.8.
    assert theirs == pytest.approx((1.36**3 * 1.5, 1.36 * 1.5), abs=0.03)
    log = Logged(list(rewards), list(target[actions]), [np.full(3, 0.5)] * n, 1.0)
    for recipe in (rw.recipes.importance_sampling, rw.recipes.per_decision):
        ours = evidence(recipe.terms(log.sample))
        assert ours.value == pytest.approx(2.4, abs=3 * ours.standard_error)


def test_an_effective_sample_size_of_weights_added_up_over_time():
    """offline-rl-ope: `n / (1 + Var_i Σ_t w_it)`. Longer episodes alone make it smaller."""
    rng = np.random.default_rng(9)
    ratios = np.exp(0.2 * rng.standard_normal((500, 1)) - 0.02)
    found = []
    for steps in (1, 20):  # one ratio, and then nineteen of 1: no weight changes
        w = np.repeat(ratios, steps, 1)
        theirs = 500 / (1 + w.sum(1).var(ddof=1))
        log = Logged(
            [np.zeros(steps)] * 500,
            [np.append(0.1 * r, [0.1] * (steps - 1)) for r in ratios[:, 0]],
            [np.full(steps, 0.1)] * 500,
            1.0,
        )
        terms = rw.recipes.importance_sampling.terms(log.sample)
        found.append((theirs, float(effective_sample_size(terms.diagnosed))))
    exact = ratios.sum() ** 2 / (ratios**2).sum()
    assert [ours for _, ours in found] == [exactly(exact), exactly(exact)]
    assert exact > 475 and found[0][0] > 475 and found[1][0] < 35
