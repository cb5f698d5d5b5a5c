from dataclasses import replace

import pytest
import torch
from core_batches import close
from marginal_samples import problem
from modelled_samples import Table, logged, population, simulated, with_rewards
from torch import nn
from torch.distributions import Beta, Categorical, Independent, Laplace, Normal
from torch.nn.functional import one_hot

from reweigh.core.segments import Segments
from reweigh.evaluation.critics import (
    CriticValues,
    cross_fitted,
    fitted_q,
    linear_critic,
    tabular_critic,
)
from reweigh.evaluation.drawing import drawer
from reweigh.evaluation.features import Scale, regressors, waves
from reweigh.evaluation.logged import numbered_states
from reweigh.evaluation.regression import fit

DISCRETE = simulated(problem(1, ending=0.4), 1, episodes=40, horizon=7, cut=0.1)
GIVEN = {"tabular": tabular_critic, "linear": linear_critic(count=10)}
each_critic = pytest.mark.parametrize("critic", GIVEN.values(), ids=GIVEN)


class Gaussian(nn.Module):
    """Acts around a multiple of the state."""

    def __init__(self, gain, deviation):
        super().__init__()
        self.gain, self.deviation = gain, deviation

    def forward(self, observations):
        mean = self.gain * observations.double()
        return Independent(Normal(mean, self.deviation, validate_args=False), 1)


def same(found, want):
    close(torch.stack(found), torch.stack(want))


def indicators(x):
    return one_hot(x[:, 0].long(), 5).double()


def by_dictionaries(sample):
    """The counted model's `Q_t(s, a)`, a step after the other; what is not in it by what is."""
    steps, segments, batch = {}, sample.segments, sample.batch
    horizon = int(segments.lengths.max())
    for i, (begin, end) in enumerate(zip(segments.start, segments.stop, strict=True)):
        for k in range(int(begin), int(end)):
            pair = int(batch.observations[k]), int(batch.actions[k])
            after = int(batch.observations[k + 1]) if k + 1 < end else None
            if k + 1 == end and end - begin == horizon and not batch.terminated[i]:
                after = int(batch.final_observations[i])
            steps.setdefault(pair, []).append((float(batch.rewards[k]), after))
    policy = sample.policy.logits.softmax(1)
    states, actions = policy.shape
    following, tables = [0.0] * states, []
    for _ in range(horizon):
        q = torch.zeros(states, actions).double()
        value, visits = [0.0] * states, [0] * states
        for s in range(states):
            seen = [a for a in range(actions) if (s, a) in steps]
            for a in seen:
                past = steps[s, a]
                visits[s] += len(past)
                for reward, after in past:
                    v = 0.0 if after is None else following[after]
                    q[s, a] += (reward + sample.sample.discount * v) / len(past)
            if seen:
                chances = [float(policy[s, a]) for a in seen]
                mean = sum(p * float(q[s, a]) for p, a in zip(chances, seen, strict=True))
                value[s] = mean / sum(chances)
            for a in set(range(actions)) - set(seen):
                q[s, a] = value[s]
        everywhere = sum(n * v for n, v in zip(visits, value, strict=True)) / sum(visits)
        for s in range(states):
            if not visits[s]:
                q[s] = everywhere
        following = value
        tables.append(q)
    return torch.stack(tables[::-1])


@pytest.mark.parametrize("episodes", [40, 3])
def test_a_table_is_the_counted_model_with_its_horizon(episodes):
    x = DISCRETE.select(torch.arange(episodes))
    horizon = int(x.segments.lengths.max())
    assert bool((x.batch.truncated & (x.segments.lengths < horizon)).any())
    table = by_dictionaries(x)
    for asked in (x, DISCRETE):
        found = tabular_critic(x, asked)
        q = table[asked.segments.time.clamp(max=horizon - 1), asked.batch.observations]
        close(found.action_values, q.gather(1, asked.batch.actions.unsqueeze(1)).squeeze(1), 1e-10)
        chances = x.policy.logits.softmax(1)[asked.batch.observations]
        close(found.values, (chances * q).sum(1), 1e-10)


def test_in_a_population_a_table_is_the_truth():
    p = population()
    found = tabular_critic(p.log, p.log)
    here = p.log.segments.time, p.log.batch.observations
    q = p.action_values[here]
    close(found.action_values, q[torch.arange(len(q)), p.log.batch.actions], 1e-10)
    close(found.values, (p.log.policy.logits.softmax(1)[here[1]] * q).sum(1), 1e-10)


def test_what_was_never_logged_is_worth_what_was():
    """Pairs and states that nobody logged, and a target that takes only those."""
    logits = torch.tensor([[0.0, 1.0, 2.0], [-torch.inf, -torch.inf, 0.0], [0.0, 0.0, 0.0]])
    states, actions = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    rewards, even = torch.tensor([1.0, 3.0, 5.0, 9.0]), torch.full((5,), -1.0)
    x = logged(states, actions, rewards, [1] * 4, Table(logits), log_probs=even[:4])
    asked = torch.tensor([0, 0, 1, 1, 2])
    actions = torch.tensor([2, 0, 2, 0, 1])
    y = logged(asked, actions, 0.0 * asked, [1] * 5, Table(logits), log_probs=even)
    mixed = float(torch.tensor([1.0, 3.0]) @ logits[0, :2].softmax(0))
    everywhere = (2 * mixed + 2 * 7.0) / 4
    found = tabular_critic(x, y)
    close(found.action_values, [mixed, 1.0, 7.0, 5.0, everywhere], 1e-6)
    close(found.values, [mixed, mixed, 7.0, 7.0, everywhere], 1e-6)
    linear = linear_critic(features=lambda s: one_hot(s[:, 0].long(), 3), ridge=0.0)(x, y)
    close(linear.action_values[:4], found.action_values[:4], 1e-6)
    close(linear.values[:4], found.values[:4], 1e-6)


def test_a_step_beyond_the_fitted_horizon_is_worth_what_the_last_is():
    short = simulated(problem(1), 1, episodes=60, horizon=2)
    asked = simulated(problem(1), 2, episodes=2, horizon=5)
    for critic in (tabular_critic, linear_critic(features=indicators, ridge=0.0)):
        found = critic(short, asked).action_values.reshape(2, 5)
        last = problem(1).reward[asked.batch.observations, asked.batch.actions].reshape(2, 5)
        close(found[:, 1:], last[:, 1:], 1e-8)


def test_linear_values_of_indicators_are_a_table():
    for x in (DISCRETE, simulated(problem(1, ending=0.4), 5, episodes=300, horizon=9)):
        table = tabular_critic(x, x)
        linear = linear_critic(features=indicators, ridge=0.0)(x, x)
        pairs = x.batch.observations * 3 + x.batch.actions
        if len(pairs.unique()) == 15:
            close(torch.stack(linear), torch.stack(table), 1e-8)
    assert len(pairs.unique()) == 15


@each_critic
def test_state_values_are_the_mean_of_action_values(critic):
    x, total = DISCRETE, torch.zeros(DISCRETE.segments.size).double()
    for action in range(3):
        alike = replace(x.batch, actions=torch.full_like(x.batch.actions, action))
        chance = x.policy.logits.softmax(1)[x.batch.observations, action]
        total += chance * critic(x, replace(x, batch=alike)).action_values
    close(critic(x, x).values, total, 1e-10)


def quadratic(x):
    return torch.stack([x[:, 0], x[:, 1], x[:, 0] ** 2, x[:, 1] ** 2, x[:, 0] * x[:, 1]], 1)


def walk(seed, *, episodes, horizon, gain=-0.4, discount=0.9):
    """`s' = 0.9 s + a` with costs `s² + a²`, and the target's gain -0.5."""
    g = torch.Generator().manual_seed(seed)
    s, steps = torch.randn(episodes, generator=g, dtype=torch.float64), []
    for _ in range(horizon):
        a = gain * s + 0.5 * torch.randn(episodes, generator=g, dtype=torch.float64)
        steps.append((s, a))
        s = 0.9 * s + a
    states, actions = (torch.stack(x, 1).reshape(-1, 1) for x in zip(*steps, strict=True))
    return logged(
        states,
        actions,
        -(states**2 + actions**2).squeeze(1),
        [horizon] * episodes,
        Gaussian(-0.5, 0.3),
        log_probs=Gaussian(gain, 0.5)(states).log_prob(actions),
        final=s.unsqueeze(1),
        terminated=torch.zeros(episodes).bool(),
        discount=discount,
    )


def test_a_quadratic_problem_is_solved_to_the_digit():
    x = walk(1, episodes=20, horizon=6)
    found = linear_critic(features=quadratic, ridge=0.0, draws=4000)(x, x)
    # V_t = -(p_t s² + c_t), with a = -s/2 + 0.3 noise and s' = 0.9 s + a.
    p = c = 0.0
    s, a, time = x.batch.observations.squeeze(1), x.batch.actions.squeeze(1), x.segments.time
    for t in reversed(range(6)):
        q = -(s**2 + a**2) - 0.9 * (p * (0.9 * s + a) ** 2 + c)
        close(found.action_values[time == t], q[time == t], 1e-3)
        p, c = 1 + 0.25 + 0.9 * p * 0.4**2, 0.09 + 0.9 * (p * 0.09 + c)
        close(found.values[time == t], -(p * s**2 + c)[time == t], 1e-3)


def test_random_features_learn_what_is_smooth():
    x, asked = walk(2, episodes=200, horizon=6), walk(3, episodes=50, horizon=6)
    good = linear_critic(features=quadratic, ridge=0.0, draws=64)(x, asked)
    found = linear_critic()(x, asked)
    for ours, theirs in zip(found, good, strict=True):
        assert float((ours - theirs).square().mean()) < 0.02 * float(theirs.var())
    rough = linear_critic(count=1)(x, asked)
    assert float((rough[1] - good[1]).square().mean()) > 0.02 * float(good[1].var())


def test_several_choices_are_told_apart():
    """Rewards that no line through the numbers of the choices gives."""
    g = torch.Generator().manual_seed(4)
    actions = torch.stack([torch.randint(n, (600,), generator=g) for n in (3, 2)], 1)
    logits = torch.tensor([[0.3, -0.2, 0.1], [0.5, 0.1, -torch.inf]])

    class Policy(nn.Module):
        def forward(self, observations):
            both = logits.expand(len(observations), 2, 3)
            return Independent(Categorical(logits=both, validate_args=False), 1)

    rewards = torch.tensor([1.0, -2.0, 1.5])[actions[:, 0]] + actions[:, 1]
    x = logged(torch.zeros(600, 1), actions, rewards, [1] * 600, Policy())
    found = fitted_q(x, x)
    close(found.action_values, rewards, 0.05)
    chances = logits.softmax(1).double()
    want = chances[0] @ torch.tensor([1.0, -2.0, 1.5]).double() + chances[1, 1]
    close(found.values.mean(), want, 0.05)
    with pytest.raises(ValueError, match="one choice each"):
        tabular_critic(*[logged(actions[:, 0], actions, rewards, [1] * 600, Policy())] * 2)


def test_many_choices_are_inputs():
    g = torch.Generator().manual_seed(5)
    actions = torch.randint(40, (4000,), generator=g)
    rewards = torch.randn(40, generator=g)[actions]
    policy = Table(torch.randn(1, 40, generator=g))

    class Blind(nn.Module):
        def forward(self, observations):
            return policy(torch.zeros(len(observations)))

    x = logged(torch.zeros(4000, 1), actions, rewards, [1] * 4000, Blind())
    found = linear_critic(draws=40)(x, x)
    close(found.action_values, rewards, 0.1)
    want = sum(float(policy.logits.softmax(1)[0, a] * rewards[actions == a][0]) for a in range(40))
    close(found.values.mean(), want, 0.1)


def test_what_diverges_is_fitted_again_with_a_ridge():
    """The last step leads from 1 to 3, where nobody goes on: each backward step triples a slope."""
    episodes, horizon = 10, 30
    states = torch.zeros(episodes, horizon)
    states[:, -1] = 1.0
    x = logged(
        states.reshape(-1, 1),
        torch.zeros(episodes * horizon).long(),
        states.flatten(),
        [horizon] * episodes,
        _Only(),
        final=torch.full((episodes, 1), 3.0),
        terminated=torch.zeros(episodes).bool(),
    )
    for ridge in (0.0, 1e-3):
        lift = regressors(x, features=lambda s: s, count=1, draws=1, seed=0)
        found = fit(x, lift, ridge=ridge)
        assert found.ridge >= 1.0
        rewards_to_come = found.coefficients.squeeze(1) @ torch.tensor([0.0, 1.0]).double()
        assert bool((rewards_to_come.abs() <= torch.arange(1, horizon + 1)).all())
        assert found.attainable[:, -1].tolist() == [0, horizon]
    calm = replace(x, batch=replace(x.batch, final_observations=torch.zeros(episodes, 1)))
    assert fit(calm, lift, ridge=1e-3).ridge == 1e-3


class _Only(nn.Module):
    def forward(self, x):
        return Categorical(logits=torch.zeros(len(x), 1))


def test_no_value_exceeds_what_rewards_add_up_to():
    g = torch.Generator().manual_seed(8)
    states = torch.randn(30, 2, generator=g)
    policy = nn.Sequential(nn.Linear(2, 2), _Choice())
    actions = torch.randint(2, (30,), generator=g)
    rewards = torch.rand(30, generator=g) - 0.2
    x = logged(states, actions, rewards, [10] * 3, policy, discount=0.5)
    found = linear_critic(ridge=0.0)(x, x)
    left = (10 - x.segments.time).double()
    for y in found:
        assert bool((y <= rewards.max() * (1 - 0.5**left) / 0.5 + 1e-9).all())
        assert bool((y >= rewards.min() * (1 - 0.5**left) / 0.5 - 1e-9).all())
    nothing = linear_critic(ridge=0.0)(with_rewards(x, 0 * rewards), x)
    assert not bool(torch.stack(nothing).any())


def test_what_ends_early_may_be_worth_less_than_all_steps():
    """Every reward is 1: ten steps to go add up to no less, unless an episode ends."""
    states = torch.tensor([0] * 9 + [1] * 10)
    nothing_else = Table(torch.zeros(2, 1))
    x = logged(states, 0 * states, torch.ones(19), [1] * 9 + [10], nothing_else)
    found = linear_critic(features=lambda s: one_hot(s[:, 0].long(), 2), ridge=0.0)(x, x)
    close(found.values[:9], torch.ones(9), 1e-8)


class _Choice(nn.Module):
    def forward(self, x):
        return Categorical(logits=x)


@each_critic
@pytest.mark.parametrize("folds", [2, 5])
def test_an_episodes_values_do_not_depend_on_its_rewards(critic, folds):
    x = DISCRETE
    rewards = torch.where(x.segments.episode == 3, 100.0, x.batch.rewards)
    changed = with_rewards(x, rewards)
    before, after = (torch.stack(cross_fitted(critic, y, folds=folds)) for y in (x, changed))
    fold = torch.arange(len(x)) % folds
    own = (fold == fold[3])[x.segments.episode]
    assert torch.equal(before[:, own], after[:, own])
    assert not torch.equal(before[:, ~own], after[:, ~own])
    # Fitted to the episode itself, they would.
    within = [torch.stack(critic(y, y))[:, own] for y in (x, changed)]
    assert not torch.equal(*within)


def test_cross_fitting_asks_about_each_episode_once_and_puts_it_back():
    asked = []

    def critic(fitted, evaluated):
        asked.append((fitted.batch.episode.tolist(), evaluated.batch.episode.tolist()))
        return CriticValues(evaluated.batch.rewards, 2 * evaluated.batch.rewards)

    found = cross_fitted(critic, DISCRETE)
    assert torch.equal(found.values, DISCRETE.batch.rewards)
    assert torch.equal(found.action_values, 2 * DISCRETE.batch.rewards)
    assert len(asked) == 5 and sorted(i for _, those in asked for i in those) == [*range(7, 47)]
    for others, those in asked:
        assert sorted([*others, *those]) == [*range(7, 47)]
    few, asked = DISCRETE.select(torch.arange(3)), []
    cross_fitted(critic, few)
    assert [those for _, those in asked] == [[7], [8], [9]]


def test_cross_fitting_of_episodes_that_lie_in_another_order():
    x = DISCRETE.select(torch.arange(4))
    order = [3, 0, 2, 1]
    segments = Segments(
        x.segments.start[order], x.segments.stop[order], x.segments.mask, x.segments.time_start
    )
    per_episode = {
        name: getattr(x.batch, name)[order]
        for name in ("final_observations", "terminated", "truncated", "episode")
    }
    moved = replace(x, batch=replace(x.batch, segments=segments, **per_episode))
    found = cross_fitted(
        lambda _, y: CriticValues(y.batch.rewards, y.batch.rewards), moved, folds=2
    )
    assert torch.equal(found.values, x.batch.rewards)


def test_fitted_q_is_a_table_where_there_can_be_one():
    x = DISCRETE
    same(fitted_q(x, x), tabular_critic(x, x))
    y = walk(1, episodes=6, horizon=4)
    same(fitted_q(y, y), linear_critic()(y, y))
    many = torch.arange(6000)
    z = logged(many, many % 2, many.double(), [1000] * 6, _Every())
    same(fitted_q(z, z), linear_critic()(z, z))
    with pytest.raises(ValueError, match="6000 states, 2 actions and 1000 times"):
        tabular_critic(z, z)


class _Every(nn.Module):
    def forward(self, x):
        return Categorical(logits=torch.zeros(len(x), 2))


def test_nothing_random_is_left_to_the_world():
    x = walk(1, episodes=10, horizon=4)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = linear_critic()(x, x)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    same(linear_critic()(x, x), first)
    assert not torch.equal(linear_critic(seed=1)(x, x).values, first.values)


def test_what_is_drawn_follows_from_episode_and_time():
    draw = drawer(Gaussian(-0.5, 0.3), draws=8, numbers=2, seed=0)
    g = torch.Generator().manual_seed(9)
    states = torch.randn(5000, 2, generator=g)
    when = torch.stack([torch.arange(5000) // 7, torch.arange(5000) % 7], 1)
    actions = draw(states, when)
    assert actions.shape == (8, 5000, 2)
    some = torch.tensor([4000, 17])
    assert torch.equal(draw(states[some], when[some]), actions[:, some])
    noise = (actions + 0.5 * states.double()) / 0.3
    close(noise.mean((0, 1)), torch.zeros(2), 0.01)
    close(noise.square().mean((0, 1)), torch.ones(2), 0.02)
    close((noise[..., 0] * noise[..., 1]).mean(), 0.0, 0.02)
    # Strata: the mean over the draws at one state varies less than that of independent ones.
    assert float(noise.mean(0).std()) < 0.6 / 8**0.5


@pytest.mark.parametrize("base", [Laplace, Beta])
def test_any_distribution_can_be_drawn_from(base):
    class Policy(nn.Module):
        def forward(self, x):
            one = torch.ones(len(x), 1).double()
            return Independent(base(2 * one, one), 1)

    torch.manual_seed(3)
    state = torch.get_rng_state()
    actions = drawer(Policy(), draws=4, numbers=1, seed=0)(
        torch.zeros(3000, 1), torch.arange(6000).reshape(-1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert actions.shape == (4, 3000, 1)
    close(actions.mean(), Policy()(torch.zeros(1, 1)).mean[0, 0], 0.02)


def test_choices_are_drawn_as_often_as_they_are_likely():
    logits = torch.tensor([[0.2, -1.0, 0.4], [0.0, 1.0, -torch.inf]])

    class Policy(nn.Module):
        def forward(self, x):
            return Independent(Categorical(logits=logits.expand(len(x), 2, 3)), 1)

    when = torch.arange(8000).reshape(-1, 2)
    actions = drawer(Policy(), draws=8, numbers=2, seed=0)(torch.zeros(4000), when)
    close(one_hot(actions, 3).double().mean((0, 1)), logits.softmax(1), 0.01)


def test_scales_are_exact_far_from_zero():
    g = torch.Generator().manual_seed(10)
    x = torch.randn(20_000, 3, generator=g, dtype=torch.float64)
    x[:, 2] = 1.0
    scale = Scale.of(1e8 + x, x[:, :1])
    close(scale.mean - 1e8, torch.cat([x.mean(0), x[:, 0].mean(0, keepdim=True) - 1e8]), 1e-6)
    close(scale.deviation[[0, 1, 3]], x[:, [0, 1, 0]].std(0, correction=0), 1e-6)
    assert scale.distance == 6**0.5
    found = scale(torch.tensor([[1e8, 1e12, 5.0, 0.0]]).double())
    assert abs(float(found[0, 0])) < 0.1 and float(found[0, 1]) == 10 and float(found[0, 2]) == 0


def test_waves_have_the_inputs_beside_them_unless_those_are_many():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(11)).double()
    scale = Scale.of(x)
    found = waves(scale, count=6, seed=0)(x)
    assert found.shape == (50, 11)
    close(found[:, :4], scale(x))
    close(found[:, -1], torch.ones(50))
    assert waves(scale, count=3, seed=0)(x).shape == (50, 4)


def test_an_end_before_the_horizon_is_an_end():
    lengths, terminated = [3, 2, 3], torch.tensor([True, False, False])
    x = logged(
        torch.tensor([4, 4, 4, 4, 9, 4, 4, 4]),
        torch.zeros(8).long(),
        torch.zeros(8),
        lengths,
        Table(torch.zeros(10, 1)),
        final=torch.tensor([-5, -6, 2]),
        terminated=terminated,
    )
    assert x.ended.tolist() == [True, True, False]
    # What lies behind an end is no state.
    found = numbered_states(x)
    assert found.observations.tolist() == [2, 4, 9]
    assert found.states[0].tolist() == [1, 1, 1, 1, 2, 1, 1, 1]
    assert int(found.final_states[0][2]) == 0


def test_thinning_hardly_depends_on_who_else_is_there():
    x = simulated(problem(3, ending=0.3), 1, episodes=400, horizon=8)
    few = x.thinned(300)
    assert 290 <= few.segments.size <= 300
    chosen = few.batch.episode
    # Spread over the log, in its order.
    assert torch.equal(chosen, chosen.sort().values)
    assert 0.3 < float((chosen < 7 + 200).double().mean()) < 0.7
    without = x.select((torch.arange(400) % 20 != 3).nonzero().squeeze(1))
    again = set(without.thinned(300).batch.episode.tolist())
    left = {e for e in chosen.tolist() if (e - 7) % 20 != 3}
    assert left <= again
    assert x.thinned(x.segments.size) is x
    assert len(x.thinned(1)) == 1


def test_a_critic_looks_at_so_many_steps_at_most():
    x = simulated(problem(3, ending=0.3), 1, episodes=100, horizon=8)
    few = x.thinned(200)
    critic = linear_critic(count=5, most_steps=200)
    same(critic(x, x), linear_critic(count=5)(few, x))


def test_first_steps():
    x = DISCRETE.first_steps()
    first = DISCRETE.segments.is_first
    assert len(x) == len(DISCRETE) and x.segments.lengths.unique().tolist() == [1]
    assert torch.equal(x.batch.observations, DISCRETE.batch.observations[first])
    assert torch.equal(x.batch.episode, DISCRETE.batch.episode)
    found = tabular_critic(DISCRETE, x)
    close(found.values, tabular_critic(DISCRETE, DISCRETE).values[first])


def test_what_cannot_be_fitted_is_refused():
    y = walk(1, episodes=4, horizon=3)
    with pytest.raises(ValueError, match=r"single integers.*float64 of shape \[1\]"):
        tabular_critic(y, y)
    with pytest.raises(ValueError, match="only one"):
        cross_fitted(tabular_critic, DISCRETE.select(torch.tensor([0])))
    with pytest.raises(ValueError, match="folds"):
        cross_fitted(tabular_critic, DISCRETE, folds=1)
    for name in ("count", "draws", "most_steps"):
        with pytest.raises(ValueError, match=name):
            linear_critic(**{name: 0})
    with pytest.raises(ValueError, match="ridge"):
        linear_critic(ridge=-1.0)
