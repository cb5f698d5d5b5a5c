from dataclasses import replace

import pytest
import torch
from core_batches import close
from marginal_samples import problem, simulate

from reweigh.core import marginal
from reweigh.core.marginal.chains import powers, products
from reweigh.core.segments import Segments

ENDING = simulate(problem(1, ending=0.4), 1, episodes=60, horizon=9, cut=0.1)
ENDLESS = simulate(problem(2), 2, episodes=200, horizon=12)

FIXED_POINTS = {
    "finite horizon": marginal.finite_horizon,
    "by time": marginal.finite_horizon_by_time,
    "discounted": lambda *x: marginal.discounted(*x, discount=0.9),
    "average reward": marginal.average_reward,
}
each = pytest.mark.parametrize("name", FIXED_POINTS)


def on_policy(x):
    return replace(x, problem=replace(x.problem, target=x.problem.behaviour))


def by_counting(x, *, pooled):
    """`m_t` from dictionaries of transitions, one step and one time after the other."""
    n, rho, count = len(x.segments), x.ratios.exp().tolist(), len(x.problem.start)
    moved, left = {}, {}
    for i, (begin, end) in enumerate(zip(x.segments.start, x.segments.stop, strict=True)):
        for t, k in enumerate(range(int(begin), int(end))):
            row = (0 if pooled else t, int(x.states[k]))
            left[row] = left.get(row, 0.0) + rho[k]
            after = int(x.states[k + 1]) if k + 1 < end else int(x.final_states[i])
            if k + 1 < end or not x.terminated[i]:
                moved[(*row, after)] = moved.get((*row, after), 0.0) + rho[k]
    logged = torch.zeros(int(x.segments.most_steps), count).double()
    for t, s in zip(x.segments.time.tolist(), x.states.tolist(), strict=True):
        logged[t, s] += 1 / n
    mass, found = logged[0].clone(), [logged[0]]
    for t in range(len(logged) - 1):
        following = torch.zeros_like(mass)
        for (row, s, after), weight in moved.items():
            if row == (0 if pooled else t):
                following[after] += mass[s] * weight / left[(row, s)]
        mass = following
        found.append(mass)
    return (torch.stack(found) / logged)[x.segments.time, x.states]


def test_chains_are_products_in_order():
    g = torch.Generator().manual_seed(3)
    matrices = torch.rand(7, 4, 4, generator=g, dtype=torch.float64)
    x = [torch.rand(4, generator=g, dtype=torch.float64)]
    for matrix in matrices[:-1]:
        x.append(x[-1] @ matrix)
    close(products(x[0], matrices), torch.stack(x))
    for times in (1, 2, 5, 8):
        close(products(x[0], matrices[:1].expand(times, 4, 4)), powers(x[0], matrices[0], times))
    large = torch.rand(30, 30, generator=g, dtype=torch.float64) / 15
    for times in (1, 3, 20, 50, 400):
        found = powers(large[0], large, times)
        want = torch.stack([large[0] @ large.matrix_power(t) for t in range(times)])
        torch.testing.assert_close(found, want, rtol=1e-9, atol=0)


@pytest.mark.parametrize("x", [ENDING, ENDLESS], ids=["ending", "endless"])
def test_finite_horizons_are_the_recursion_counted_by_hand(x):
    found = marginal.finite_horizon_by_time(x.visits, x.ratios, x.segments)
    close(found.log_state_ratios.exp(), by_counting(x, pooled=False), 1e-10)
    found = marginal.finite_horizon(x.visits, x.ratios, x.segments)
    close(found.log_state_ratios.exp(), by_counting(x, pooled=True), 1e-10)
    assert float(found.clipped) == 0.0


def test_equal_policies_give_exactly_one():
    x = on_policy(simulate(problem(1, ending=0.4), 4, episodes=50, horizon=9))
    found = marginal.finite_horizon_by_time(x.visits, x.ratios, x.segments)
    close(found.log_state_ratios, torch.zeros(x.segments.size))
    close(torch.stack([found.residual, found.mean]), [0.0, 1.0])
    x = on_policy(simulate(problem(1, ending=0.9), 4, episodes=50, horizon=100))
    assert bool(x.terminated.all())
    found = marginal.average_reward(x.visits, x.ratios, x.segments)
    close(found.log_state_ratios, torch.zeros(x.segments.size))
    close(torch.stack([found.residual, found.mean]), [0.0, 1.0])


def test_first_states_need_no_correction():
    for x in (ENDING, simulate(problem(5), 5, episodes=40, horizon=1)):
        for estimate in (marginal.finite_horizon, marginal.finite_horizon_by_time):
            found = estimate(x.visits, x.ratios, x.segments)
            close(found.log_state_ratios[x.segments.is_first], torch.zeros(len(x.segments)))


def test_without_a_future_only_starts_count():
    x = ENDLESS
    found = marginal.discounted(x.visits, x.ratios, x.segments, discount=0.0)
    first = x.segments.is_first.double()
    starts = torch.zeros(5).double().index_add(0, x.states, first)
    visits = torch.zeros(5).double().index_add(0, x.states, torch.ones_like(first))
    close(found.log_state_ratios.exp(), (starts / visits)[x.states])


@each
def test_one_hot_features_are_a_table(name):
    for x in (ENDING, ENDLESS):
        table = FIXED_POINTS[name](x.visits, x.ratios, x.segments)
        visits = marginal.Linear(*x.one_hot(), x.terminated)
        linear = FIXED_POINTS[name](visits, x.ratios, x.segments)
        for found, want in zip(linear, table, strict=True):
            close(found.exp(), want.exp(), 1e-9)


@each
def test_a_change_of_basis_changes_nothing(name):
    x, g = ENDLESS, torch.Generator().manual_seed(6)
    basis = torch.randn(5, 5, generator=g, dtype=torch.float64)
    features, final = (f @ basis for f in x.one_hot())
    linear = FIXED_POINTS[name](
        marginal.Linear(features, final, x.terminated), x.ratios, x.segments
    )
    table = FIXED_POINTS[name](x.visits, x.ratios, x.segments)
    close(linear.log_state_ratios.exp(), table.log_state_ratios.exp(), 1e-7)


@each
def test_a_ridge_does_not_depend_on_the_units(name):
    x = ENDLESS
    features, final = x.one_hot()
    found = [
        FIXED_POINTS[name](
            marginal.Linear(unit * features, unit * final, x.terminated, ridge=0.1),
            x.ratios,
            x.segments,
        ).log_state_ratios.exp()
        for unit in (1.0, 100.0)
    ]
    close(found[1], found[0], 1e-9)


def test_the_mass_of_visits_is_kept():
    x = simulate(problem(7), 7, episodes=400, horizon=8, cut=0.1)
    coarse = torch.tensor([[1.0, -2.0], [1.0, -1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 6.0]])
    visits = marginal.Linear(*(f @ coarse.double() for f in x.one_hot()), x.terminated)
    for v in (x.visits, visits):
        for estimate in (marginal.finite_horizon, marginal.finite_horizon_by_time):
            m = estimate(v, x.ratios, x.segments).log_state_ratios.exp()
            by_time = torch.zeros(8).double().index_add(0, x.segments.time, m)
            # Of the episodes that were cut, nobody knows the rest: the others stand for them.
            close(by_time / 400, torch.ones(8), 1e-9)
        m = marginal.discounted(v, x.ratios, x.segments, discount=0.9).log_state_ratios.exp()
        close(m.sum() / 400, 10.0, 1e-9)
        close(marginal.average_reward(v, x.ratios, x.segments).mean, 1.0)


def test_what_would_be_negative_is_clipped_and_counted():
    g = torch.Generator().manual_seed(8)
    x = torch.randn(300, generator=g, dtype=torch.float64)
    segments = Segments.packed([2] * 150)
    features = torch.stack([torch.ones(300).double(), x], 1)
    final = torch.stack([torch.ones(150).double(), torch.zeros(150).double()], 1)
    # The target goes where the feature is large, far beyond what a straight line can say.
    after = segments.next(x, torch.zeros(150).double())
    visits = marginal.Linear(features, final, torch.zeros(150).bool())
    found = marginal.finite_horizon_by_time(visits, 3 * after, segments)
    m = found.log_state_ratios.exp()
    assert 0.05 < float(found.clipped) < 0.5
    assert bool((m >= 0).all()) and int((m == 0).sum()) == round(float(found.clipped) * 300)
    close(m.reshape(-1, 2).mean(0), [1.0, 1.0])


@each
def test_only_relative_ratios_count(name):
    x = ENDLESS
    features = marginal.Linear(*x.one_hot(), x.terminated, ridge=1e-3)
    for visits in (x.visits, features):
        plain = FIXED_POINTS[name](visits, x.ratios, x.segments).log_state_ratios
        shifted = FIXED_POINTS[name](visits, x.ratios + 9000.0, x.segments).log_state_ratios
        close(shifted, plain, 1e-9)
        float32 = FIXED_POINTS[name](visits, x.ratios.float(), x.segments).log_state_ratios
        assert float32.dtype == torch.float64
        close(float32, plain, 1e-5)
        wild = torch.where(x.actions == 0, 1e4, -1e4)
        m = FIXED_POINTS[name](visits, wild, x.segments).log_state_ratios.exp()
        assert bool(m.isfinite().all())


def test_states_that_the_target_avoids_have_ratio_zero():
    """Action 0 stays, action 1 leaves: a target that never leaves is never elsewhere."""
    actions = torch.tensor([0, 1, 1, 0, 0, 0, 1, 1, 0])
    states = torch.tensor([0, 0, 1, 0, 0, 0, 0, 1, 0])
    final = torch.tensor([0, 0, 0])
    visits = marginal.Tabular(states, final, torch.zeros(3).bool(), 2)
    never = torch.where(actions == 1, -torch.inf, 0.3)
    found = marginal.finite_horizon(visits, never, Segments.packed([3, 3, 3]))
    want = torch.where(states == 1, 0.0, torch.tensor([1.0, 1.5, 1.5]).repeat(3))
    close(found.log_state_ratios.exp(), want)
    close(found.residual, 0.0, 1.0)
    assert bool(torch.isfinite(found.residual))


def occupancy_error(estimate, want, sizes, horizon=10, ending=0.2):
    given = problem(9, ending=ending)
    errors = []
    for episodes in sizes:
        x = simulate(given, 10, episodes=episodes, horizon=horizon)
        m = estimate(x.visits, x.ratios, x.segments).log_state_ratios.exp()
        exact = want(given)[x.segments.time, x.states]
        errors.append(float((m - exact).square().mean().sqrt()))
    return errors


def ratio_by_time(given, horizon=10):
    target, behaviour = (given.occupancy(x, horizon) for x in (given.target, given.behaviour))
    return target / behaviour


def ratio_discounted(given, horizon=10, discount=0.9):
    ahead = discount ** torch.arange(600).double().unsqueeze(1)
    total = (ahead * given.occupancy(given.target, 600)).sum(0)
    return (total / given.occupancy(given.behaviour, horizon).sum(0)).expand(horizon, -1)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("finite horizon", ratio_by_time),
        ("by time", ratio_by_time),
        ("discounted", ratio_discounted),
    ],
)
def test_errors_fall_with_the_root_of_the_sample(name, want):
    small, large = occupancy_error(FIXED_POINTS[name], want, (500, 32_000))
    assert large < 0.3 * small < 0.3


def test_pooling_over_time_finds_the_occupancy_better():
    """By time, the noise of the visits logged cancels in the ratio, not in what is weighted."""
    given = problem(9)
    exact, errors = given.occupancy(given.target, 10)[4:], {}
    for name in ("finite horizon", "by time"):
        errors[name] = 0.0
        for seed in range(10):
            x = simulate(given, seed, episodes=200, horizon=10)
            m = FIXED_POINTS[name](x.visits, x.ratios, x.segments).log_state_ratios.exp()
            mass = torch.zeros(50).double().index_add(0, x.segments.time * 5 + x.states, m) / 200
            errors[name] += float((mass.reshape(10, 5)[4:] - exact).square().sum())
    assert errors["finite horizon"] < 0.5 * errors["by time"]


def test_dynamics_that_change_with_time_need_a_transition_for_each():
    """The first action decides the next state, later ones do nothing."""
    g = torch.Generator().manual_seed(11)
    actions = torch.randint(2, (4000, 3), generator=g)
    states = torch.stack([torch.zeros(4000).long(), actions[:, 0], actions[:, 0]], 1)
    visits = marginal.Tabular(states.flatten(), actions[:, 0], torch.zeros(4000).bool(), 2)
    ratios = torch.tensor([0.4, 1.6]).log()[actions.flatten()]
    segments = Segments.packed([3] * 4000)
    want = torch.tensor([0.4, 1.6])[states[:, 2]]
    m = (
        marginal.finite_horizon_by_time(visits, ratios, segments)
        .log_state_ratios.exp()
        .reshape(-1, 3)
    )
    close(m[:, 2], want, 0.1)
    m = marginal.finite_horizon(visits, ratios, segments).log_state_ratios.exp().reshape(-1, 3)
    assert float((m[:, 2] - want).abs().mean()) > 0.05


def test_long_episodes_find_the_stationary_distribution():
    given = problem(12)
    x = simulate(given, 13, episodes=20, horizon=2000)
    found = marginal.average_reward(x.visits, x.ratios, x.segments)
    last = [given.occupancy(p, 300)[-1] for p in (given.target, given.behaviour)]
    close(found.log_state_ratios.exp(), (last[0] / last[1])[x.states], 0.05)
    assert float(found.residual) < 0.02
    fragments = replace(x.segments, time_start=torch.arange(20))
    same = marginal.average_reward(x.visits, x.ratios, fragments)
    close(same.mean, 1.0)


@pytest.mark.parametrize("ending", [0.0, 0.5])
def test_the_residual_is_what_the_ratios_leave_of_the_flow(ending):
    x = simulate(problem(14, ending=ending), 14, episodes=30, horizon=6)
    rho, count = x.state_normalised_ratios, 5
    for name in ("finite horizon", "discounted"):
        found = FIXED_POINTS[name](x.visits, x.ratios, x.segments)
        m, gamma = found.log_state_ratios.exp(), 0.9 if name == "discounted" else 1.0
        flow = torch.zeros(count).double()
        total = torch.zeros(count).double()
        following = x.visits.moves(x.segments)[1]
        for k in range(x.segments.size):
            last, first = bool(x.segments.is_last[k]), bool(x.segments.is_first[k])
            ended = last and bool(x.terminated[x.segments.episode[k]])
            if not ended and (name == "discounted" or not last):
                flow[following[k]] += gamma * m[k] * x.ratios[k].exp()
            if first and name == "discounted":
                flow[x.states[k]] += 1.0
            if name == "discounted" or not first:
                total[x.states[k]] += m[k]
        close(found.residual, (flow - total).norm() / total.norm())
    # Ratios whose mean is 1 in each state are what the fit itself uses.
    same = marginal.discounted(x.visits, rho, x.segments, discount=0.9)
    close(same.residual, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"states": ENDLESS.states - 1}, r"states hold -1, outside \[0, 5\)"),
        ({"final_states": ENDLESS.final_states + 5}, "count must exceed the largest state"),
        ({"states": ENDLESS.states.double()}, "features make a Linear"),
        ({"states": ENDLESS.states[1:]}, "states must have shape"),
        ({"terminated": torch.zeros(200)}, "terminated must be bool"),
        ({"segments": replace(ENDLESS.segments, time_start=torch.ones(200).long())}, "fragments"),
    ],
)
def test_refuses_with_the_users_values(change, message):
    x = replace(ENDLESS, **change)
    with pytest.raises(ValueError, match=message):
        marginal.finite_horizon(x.visits, ENDLESS.ratios, x.segments)


def test_linear_refuses_too():
    x = ENDLESS
    features, final = x.one_hot()
    with pytest.raises(ValueError, match=r"final_features must have shape \[200, 5\]"):
        visits = marginal.Linear(features, final[1:], x.terminated)
        marginal.average_reward(visits, x.ratios, x.segments)
    with pytest.raises(ValueError, match="ridge must lie in"):
        visits = marginal.Linear(features, final, x.terminated, ridge=-1.0)
        marginal.average_reward(visits, x.ratios, x.segments)
    with pytest.raises(ValueError, match="discount must lie in"):
        marginal.discounted(x.visits, x.ratios, x.segments, discount=1.5)


def test_final_states_after_a_termination_are_not_read():
    x = ENDING
    garbage = torch.where(x.terminated, 99, x.final_states)
    features, final = x.one_hot()
    nan = torch.where(x.terminated[:, None], torch.nan, final)
    for estimate in FIXED_POINTS.values():
        want = estimate(x.visits, x.ratios, x.segments).log_state_ratios
        found = estimate(replace(x, final_states=garbage).visits, x.ratios, x.segments)
        close(found.log_state_ratios, want)
        found = estimate(marginal.Linear(features, nan, x.terminated), x.ratios, x.segments)
        close(found.log_state_ratios.exp(), want.exp(), 1e-9)
