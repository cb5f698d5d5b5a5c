import math

import pytest
import torch
from core_batches import close
from marginal_samples import problem, simulate

from reweigh.core import marginal
from reweigh.core.segments import Segments

ENDING = simulate(problem(1, ending=0.4), 1, episodes=60, horizon=9, cut=0.1)
ENDLESS = simulate(problem(2), 2, episodes=100, horizon=12)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def fit(x, *, ratios=None, discount=0.9, **knobs):
    return marginal.kernel_discounted(
        *x.one_hot(),
        x.terminated,
        x.ratios if ratios is None else ratios,
        x.segments,
        discount=discount,
        generator=generator(),
        **knobs,
    )


@pytest.mark.parametrize("x", [ENDING, ENDLESS], ids=["ending", "endless"])
def test_a_kernel_that_tells_all_states_apart_is_a_table(x):
    ratios = x.state_normalised_ratios
    found = fit(x, ratios=ratios, bandwidth=0.01, ridges=[1e-14])
    want = marginal.discounted(x.visits, ratios, x.segments, discount=0.9)
    close(found.log_state_ratios.exp(), want.log_state_ratios.exp(), 1e-6)
    close(found.mean, want.mean, 1e-6)
    found = fit(x, ratios=ratios, discount=1.0, bandwidth=0.01, ridges=[1e-14])
    want = marginal.average_reward(x.visits, ratios, x.segments)
    close(found.log_state_ratios.exp(), want.log_state_ratios.exp(), 1e-6)
    close(found.mean, 1.0)


def test_it_minimises_the_norm_written_with_kernels():
    """The quadratic problem in the coefficients of kernels at the states, from inner products."""
    g, n, gamma, ridge = generator(3), 24, 0.8, 1e-3
    s, final = torch.randn(n, 2, generator=g).double(), torch.randn(6, 2, generator=g).double()
    log_ratios = 0.3 * torch.randn(n, generator=g).double()
    segments = Segments.packed([4] * 6)

    def k(x, y):
        return (-torch.cdist(x, y).square() / (2 * 0.7**2)).exp()

    # u_i = Σ_j c_ij k(points_j, ·): the next state, all first states, and less the state itself.
    points, rho = torch.cat([s, final]), log_ratios.exp()
    c = torch.zeros(n, n + 6).double()
    c[:, :n:4] = (1 - gamma) / 6
    for i in range(n):
        c[i, n + i // 4 if i % 4 == 3 else i + 1] += gamma * rho[i]
        c[i, i] -= 1
    gram = c @ k(points, points) @ c.mT
    spanned, constant = k(s, points), torch.ones(n).double()
    system = spanned.mT @ gram @ spanned / n**2 + ridge * k(points, points)
    b = -spanned.mT @ gram @ constant / n**2
    want = (1 + spanned @ torch.linalg.lstsq(system, b).solution).clamp(min=0)
    found = marginal.kernel_discounted(
        s,
        final,
        torch.zeros(6).bool(),
        log_ratios,
        segments,
        discount=gamma,
        generator=g,
        bandwidth=0.7,
        ridges=[ridge],
    )
    close(found.log_state_ratios.exp(), want / want.mean() * 6 / (0.2 * n), 1e-5)


def test_a_heavy_ridge_changes_nothing():
    found = fit(ENDLESS, discount=1.0, ridges=[1e9])
    close(found.log_state_ratios, torch.zeros(1200), 1e-6)
    close(found.residual, 1.0, 1e-6)


def test_held_out_episodes_choose_the_ridge():
    many = simulate(problem(2), 2, episodes=1500, horizon=12)
    tried = {ridge: fit(many, ridges=[ridge]).residual for ridge in (1e-1, 1e-3, 1e-6)}
    found = fit(many, ridges=list(tried))
    close(found.residual, min(tried.values()))
    close(tried[float(found.ridge)], found.residual)
    assert float(found.residual) < 0.4
    # Regression to the noise of 8 short episodes is seen on those held out.
    few = simulate(problem(2), 3, episodes=8, horizon=2)
    assert float(fit(few, ridges=[1e-12]).residual) > max(float(fit(few).residual), 0.9)


def walk(ratio_toward, episodes, seed):
    """`s' = s/2 + a + noise`, with Gaussian actions around 0 or, under the target, elsewhere."""
    g = generator(seed)
    state, steps = torch.zeros(episodes, dtype=torch.float64), []
    for _ in range(60):
        action = torch.randn(episodes, generator=g, dtype=torch.float64)
        steps.append((state, ratio_toward * action - ratio_toward**2 / 2))
        state = 0.5 * state + action + torch.randn(episodes, generator=g, dtype=torch.float64)
    s, log_ratios = (torch.stack(x, 1).flatten() for x in zip(*steps, strict=True))
    return s.unsqueeze(1), state.unsqueeze(1), log_ratios, Segments.packed([60] * episodes)


# 100 episodes have more than 5000 states, of which 60 then span the ratio.
@pytest.mark.parametrize("episodes", [15, 100])
def test_states_on_a_line_have_the_ratio_of_two_gaussians(episodes):
    s, final, log_ratios, segments = walk(0.3, episodes, 4)
    found = marginal.kernel_discounted(
        s,
        final,
        torch.zeros(episodes).bool(),
        log_ratios,
        segments,
        discount=1.0,
        generator=generator(5),
        landmarks=60,
    )
    # Stationary: variance 2 / (1 - 1/4), mean 0 or 0.3 / (1 - 1/2).
    variance, mean = 8 / 3, 0.6
    want = ((mean * s - mean**2 / 2) / variance).exp().squeeze(1)
    error = (found.log_state_ratios.exp() - want).square().mean()
    assert float(error) < 0.2 * float((want - 1).square().mean())
    close(found.mean, 1.0)


def test_states_that_are_given_span_the_ratio():
    s, final, log_ratios, segments = walk(0.3, 5, 4)
    given = (s, final, torch.zeros(5).bool(), log_ratios, segments)

    def ratios(**chosen):
        found = marginal.kernel_discounted(
            *given, discount=1.0, generator=generator(5), bandwidth=1.0, **chosen
        )
        return found.log_state_ratios.exp()

    close(ratios(landmarks=torch.cat([s, final])), ratios(), 1e-8)
    # 1 + g k(s, 0.5), up to a factor: linear in the kernel.
    x = (-(s.squeeze(1) - 0.5).square() / 2).exp()
    y = ratios(landmarks=torch.full((1, 1), 0.5))
    close((y - y.mean()) * (x - x.mean()).norm(), (x - x.mean()) * (y - y.mean()).norm(), 1e-8)
    with pytest.raises(ValueError, match="landmarks"):
        ratios(landmarks=torch.zeros(3))


def test_the_median_distance():
    def bandwidth(states, lengths):
        return marginal.kernel_discounted(
            states,
            states[:2],
            torch.ones(2, dtype=torch.bool),
            torch.zeros(len(states)),
            Segments.packed(lengths),
            discount=0.5,
            generator=generator(7),
            landmarks=states[:5],
        ).bandwidth

    x = torch.tensor([[0.0], [3.0], [3.0]])
    close(bandwidth(x, [2, 1]), 3.0)
    close(bandwidth(0 * x, [2, 1]), 1.0)
    many = torch.randn(3000, 1, generator=generator(6))
    assert abs(float(bandwidth(many, [1500, 1500])) - 0.954) < 0.05


def test_random_fourier_features_are_a_gaussian_kernel():
    features = marginal.random_fourier(3, count=20_000, bandwidth=1.5, generator=generator(8))
    x = torch.randn(5, 3, generator=generator(9))
    found = features(x) @ features(x).mT
    want = 1 + (-torch.cdist(x, x).double().square() / (2 * 1.5**2)).exp()
    close(found, want, 0.03)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"bandwidth": 0.0}, "bandwidth must be positive"),
        ({"folds": 1}, "folds must be an integer of at least 2"),
        ({"discount": -0.1}, "discount must lie in"),
        ({"ratios": ENDLESS.ratios + 1e4}, "bound them first"),
        ({"ridges": [1.0, 0.0]}, "ridges must be positive, got 0.0"),
    ],
)
def test_refuses_with_the_users_values(knobs, message):
    with pytest.raises(ValueError, match=message):
        fit(ENDLESS, **knobs)


def test_refuses_what_cannot_be_held_out():
    one = simulate(problem(2), 3, episodes=1, horizon=5)
    with pytest.raises(ValueError, match="1 of 1 episodes have steps"):
        fit(one)


def tell_apart(new_states, old_states, **knobs):
    """The classifier on one-hot features of three states."""
    states = torch.cat([new_states, old_states])
    is_new = torch.arange(len(states)) < len(new_states)
    segments = Segments.packed([len(states)])
    return states, is_new, marginal.classifier(torch.eye(3)[states], is_new, segments, **knobs)


NEW = torch.tensor([0, 0, 0, 1, 1, 2])
OLD = torch.tensor([0, 1, 1, 1, 2, 2, 2, 2, 2, 2])


def test_one_hot_features_count_visits():
    states, _, found = tell_apart(NEW, OLD, ridge=0.0)
    new, old = torch.tensor([3, 2, 1]) / 6, torch.tensor([1, 3, 6]) / 10
    every = torch.tensor([4, 5, 7]) / 16
    close(found.log_state_ratios.exp(), (new / every)[states], 1e-6)
    close(found.log_odds.exp(), (new / old)[states], 1e-6)
    close(found.mean, 1.0, 1e-8)
    p = torch.tensor([3 / 4, 2 / 5, 1 / 7]).double()
    entropy = -(p * p.log() + (1 - p) * (1 - p).log())
    close(found.cross_entropy, (torch.tensor([4, 5, 7]) / 16 * entropy).sum(), 1e-6)


def test_against_the_mixture_ratios_are_bounded():
    g = generator(10)
    x = torch.cat([1 + torch.randn(50, 2, generator=g), torch.randn(200, 2, generator=g)]).double()
    is_new, segments = torch.arange(250) < 50, Segments.packed([250])
    found = marginal.classifier(x, is_new, segments)
    assert float(found.log_state_ratios.max()) <= math.log(5)
    odds = found.log_odds.exp()
    close(found.log_state_ratios.exp(), odds / (0.2 * odds + 0.8), 1e-10)
    # The optimum: what is predicted and what is observed agree along every feature.
    y = is_new.double()
    p = 0.2 * found.log_state_ratios.exp()
    close(x.mT @ (p - y) / 250, -1e-4 * found.coefficients[:2], 1e-8)
    close((p - y).mean(), 0.0, 1e-8)
    again = marginal.classifier(x, is_new, segments, start=found.coefficients, maximum_iterations=1)
    close(again.coefficients, found.coefficients, 1e-8)
    cold = marginal.classifier(x, is_new, segments, maximum_iterations=1)
    assert float((cold.coefficients - found.coefficients).norm()) > 1e-3


def test_equal_states_have_ratio_one():
    _, _, found = tell_apart(OLD, OLD.repeat(3))
    close(found.log_state_ratios, torch.zeros(40), 1e-9)
    close(found.cross_entropy, -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)), 1e-9)


def test_states_that_never_mix_stay_finite():
    _, _, found = tell_apart(torch.tensor([0, 0]), torch.tensor([1, 2, 2]), ridge=1e-6)
    assert bool(found.coefficients.isfinite().all())
    close(found.log_state_ratios.exp()[:2], [2.5, 2.5], 0.01)
    # From far away, where a whole Newton step overshoots.
    far = torch.tensor([-30.0, 30.0, 30.0, 5.0])
    _, _, again = tell_apart(torch.tensor([0, 0]), torch.tensor([1, 2, 2]), ridge=1e-6, start=far)
    close(again.log_state_ratios.exp(), found.log_state_ratios.exp(), 1e-4)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"ridge": -1.0}, "ridge must lie in"),
        ({"start": torch.zeros(2)}, r"start must have shape \[4\]"),
    ],
)
def test_the_classifier_refuses_with_the_users_values(knobs, message):
    with pytest.raises(ValueError, match=message):
        tell_apart(NEW, OLD, **knobs)


def test_one_policy_alone_is_refused():
    with pytest.raises(ValueError, match="share of 1 of the steps"):
        tell_apart(NEW, OLD[:0])


def test_a_few_short_episodes_choose_a_ridge_that_leaves_mass():
    for seed in range(12):
        g = torch.Generator().manual_seed(seed)
        segments = Segments.packed([2] * 5)
        found = marginal.kernel_discounted(
            torch.randn(10, 1, generator=g, dtype=torch.float64),
            torch.randn(5, 1, generator=g, dtype=torch.float64),
            torch.zeros(5, dtype=torch.bool),
            torch.randn(10, generator=g, dtype=torch.float64),
            segments,
            discount=0.9,
            generator=g,
        )
        assert not found.log_state_ratios.isnan().any() and not found.residual.isnan()
