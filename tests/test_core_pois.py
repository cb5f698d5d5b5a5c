import math

import pytest
import torch
from core_batches import close

from reweigh.core import divergences, surrogates, weights
from reweigh.core.ratios import log_ratios
from reweigh.core.segments import Segments

LENGTHS = [3, 1, 0, 4]
RETURNS = torch.tensor([1.0, -2.5, 0.0, 0.7], dtype=torch.float64)


def gradient(value, leaf):
    return torch.autograd.grad(value, leaf, retain_graph=True)[0]


def softmax_policies(seed=0, actions=3):
    """Logits of target and behaviour at each step, and the actions taken."""
    g = torch.Generator().manual_seed(seed)
    target, behaviour = torch.randn(2, sum(LENGTHS), actions, generator=g, dtype=torch.float64)
    return target, behaviour, torch.randint(actions, (sum(LENGTHS),), generator=g)


def taken(logits, actions):
    return logits.log_softmax(1).gather(1, actions.unsqueeze(1)).squeeze(1)


def test_the_bound_of_the_paper_written_as_a_loop():
    target, behaviour, actions = softmax_policies()
    segments, delta = Segments.packed(LENGTHS), 0.3
    ratios = log_ratios(taken(target, actions), taken(behaviour, actions), segments)
    step_divergence = divergences.renyi2_categorical(target, behaviour, segments)
    p, q = target.softmax(1), behaviour.softmax(1)
    mean, d2, start = 0.0, 0.0, 0
    for length, value in zip(LENGTHS, RETURNS.tolist(), strict=True):
        w, product = 1.0, 1.0
        for t in range(start, start + length):
            w *= float(p[t, actions[t]] / q[t, actions[t]])
            product *= sum(float(p[t, a] ** 2 / q[t, a]) for a in range(3))
        mean, d2, start = mean + w * value / 4, d2 + product / 4, start + length
    size = surrogates.renyi_sample_size(step_divergence, segments)
    log_weights = weights.trajectory(ratios, segments)
    assert size.item() == pytest.approx(4 / d2, rel=1e-12)
    bound = surrogates.pois_bound(log_weights, RETURNS, size, segments, delta=delta)
    want = mean - 2.5 * math.sqrt((1 - delta) / delta) / math.sqrt(float(size))
    assert bound.item() == pytest.approx(want, rel=1e-12)
    wider = surrogates.pois_bound(log_weights, RETURNS, size, segments, delta=delta, max_return=5.0)
    assert wider.item() == pytest.approx(mean - 5 * math.sqrt((1 - delta) / delta * d2 / 4))


@pytest.mark.parametrize("normalise", [False, True])
def test_everything_but_the_returns_is_differentiated(normalise):
    target, behaviour, actions = softmax_policies(1)
    segments = Segments.packed(LENGTHS)
    returns = RETURNS.clone().requires_grad_()

    def bound(logits):
        ratios = log_ratios(taken(logits, actions), taken(behaviour, actions), segments)
        log_weights = weights.trajectory(ratios, segments)
        step_divergence = divergences.renyi2_categorical(logits, behaviour, segments)
        n = surrogates.renyi_sample_size(step_divergence, segments)
        if normalise:
            log_weights = weights.self_normalise(log_weights, segments)
        return surrogates.pois_bound(log_weights, returns, n, segments, delta=0.4)

    leaf = target.requires_grad_()
    assert torch.autograd.gradcheck(bound, leaf)
    assert torch.autograd.grad(bound(leaf), returns, allow_unused=True)[0] is None


def test_gaussian_policies():
    g = torch.Generator().manual_seed(3)
    segments = Segments.packed(LENGTHS)
    mean_q, deviation_q = torch.zeros(8, 2).double(), torch.ones(8, 2).double()
    actions = torch.randn(8, 2, generator=g).double()
    mean = (0.3 * torch.randn(8, 2, generator=g)).double().requires_grad_()
    log_deviation = (0.2 * torch.randn(8, 2, generator=g)).double().requires_grad_()

    def log_prob(mean, deviation):
        return torch.distributions.Normal(mean, deviation).log_prob(actions).sum(1)

    def bound(mean, log_deviation):
        deviation = log_deviation.exp()
        ratios = log_ratios(log_prob(mean, deviation), log_prob(mean_q, deviation_q), segments)
        step_divergence = divergences.renyi2_gaussian(
            mean, deviation, mean_q, deviation_q, segments
        )
        size = surrogates.renyi_sample_size(step_divergence, segments)
        log_weights = weights.trajectory(ratios, segments)
        return surrogates.pois_bound(log_weights, RETURNS, size, segments, delta=0.4)

    assert torch.autograd.gradcheck(bound, (mean, log_deviation))
    # A target whose weight has no second moment is worth no episode at all.
    assert bound(mean, log_deviation + 1).item() == -math.inf


@pytest.mark.parametrize("delta", [0.2, 1.0])
def test_on_policy_the_penalty_has_no_gradient(delta):
    target, _, actions = softmax_policies(2)
    segments, leaf = Segments.packed(LENGTHS), target.clone().requires_grad_()
    log_prob = taken(leaf, actions)
    log_weights = weights.trajectory(log_ratios(log_prob, log_prob, segments), segments)
    size = surrogates.renyi_sample_size(
        divergences.renyi2_categorical(leaf, target, segments), segments
    )
    total = segments.spread(RETURNS)
    reinforce = surrogates.weighted_log_prob(log_prob, torch.ones(8), total, segments).sum() / 4
    assert size.item() == pytest.approx(4)
    bound = surrogates.pois_bound(log_weights, RETURNS, size, segments, delta=delta)
    close(gradient(bound, leaf), gradient(reinforce, leaf))
    want = RETURNS.mean().item() - 2.5 * math.sqrt((1 - delta) / delta / 4)
    assert bound.item() == pytest.approx(want)


def test_the_bound_holds_as_often_as_it_says():
    behaviour = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    target = torch.tensor([0.3, 0.2, 0.5], dtype=torch.float64)
    reward, delta, size = torch.tensor([0.0, 1.0, 3.0]).double(), 0.2, 20
    segments = Segments.packed([1] * size)
    logits = (x.log().expand(size, 3) for x in (target, behaviour))
    n = surrogates.renyi_sample_size(divergences.renyi2_categorical(*logits, segments), segments)
    assert n.item() == pytest.approx(size / float((target**2 / behaviour).sum()))
    g = torch.Generator().manual_seed(0)
    samples = torch.multinomial(behaviour, 400 * size, replacement=True, generator=g)
    bounds = [
        surrogates.pois_bound(
            (target / behaviour).log()[a], reward[a], n, segments, delta=delta, max_return=3.0
        ).item()
        for a in samples.reshape(400, size)
    ]
    truth = float((target * reward).sum())
    assert sum(bound <= truth for bound in bounds) >= (1 - delta) * 400
    assert min(bounds) < truth < max(bounds) + 3.0


def test_extreme_weights_stay_finite_when_normalised():
    segments = Segments.packed([2, 2, 1])
    ratios = torch.tensor([1e4, -3e3, 5.0, 1e4, -1e4], dtype=torch.float64, requires_grad=True)
    log_weights = weights.trajectory(ratios, segments)
    size = torch.tensor(1.0)
    bound = surrogates.pois_bound(
        weights.self_normalise(log_weights, segments),
        torch.tensor([1.0, 2.0, -1.0]),
        size,
        segments,
        delta=0.5,
    )
    assert bound.item() == pytest.approx(0.0)
    assert bool(gradient(bound, ratios).isfinite().all())


def test_a_return_of_zero_meets_a_weight_that_overflows():
    log_weights = torch.tensor([1e4, 0.0], dtype=torch.float64, requires_grad=True)
    bound = surrogates.pois_bound(
        log_weights, torch.tensor([0.0, 1.0]), torch.tensor(2.0), Segments.packed([1, 1]), delta=1.0
    )
    assert bound.item() == 0.5
    assert gradient(bound, log_weights).tolist() == [0.0, 0.5]


def test_refusals():
    one, segments, size = torch.zeros(1), Segments.packed([1]), torch.tensor(1.0)
    for delta in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"delta must .*got {delta}"):
            surrogates.pois_bound(one, one, size, segments, delta=delta)
    with pytest.raises(ValueError, match="max_return must be positive, got -1"):
        surrogates.pois_bound(one, one, size, segments, delta=0.5, max_return=-1)
    with pytest.raises(ValueError, match=r"returns must have shape \[1\]"):
        surrogates.pois_bound(one, torch.ones(2), size, segments, delta=0.5)
    part = Segments.packed([1], time_start=torch.tensor([3]))
    for name, call in {
        "pois_bound": lambda: surrogates.pois_bound(one, one, size, part, delta=0.5),
        "renyi_sample_size": lambda: surrogates.renyi_sample_size(one, part),
    }.items():
        with pytest.raises(ValueError, match=f"{name} needs whole episodes"):
            call()


def test_without_doubt_a_worthless_sample_is_not_penalised():
    segments = Segments.packed([1, 1])
    log_weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    nothing = torch.zeros((), dtype=torch.float64)
    sure = surrogates.pois_bound(log_weights, torch.ones(2), nothing, segments, delta=1.0)
    assert sure.item() == 1.0
    empty = surrogates.pois_bound(log_weights, torch.zeros(2), nothing, segments, delta=0.5)
    assert empty.item() == 0.0


def test_an_infinite_divergence_makes_the_sample_worthless_and_no_gradient_nan():
    divergences = torch.tensor([0.1, torch.inf, 0.2], dtype=torch.float64, requires_grad=True)
    size = surrogates.renyi_sample_size(divergences, Segments.packed([2, 1]))
    assert size.item() == 0.0
    (slope,) = torch.autograd.grad(size, divergences)
    assert slope.tolist() == [0.0, 0.0, 0.0]
