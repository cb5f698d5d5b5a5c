import itertools
import math

import pytest
import torch
from core_batches import close, ragged

from reweigh.core import returns, surrogates
from reweigh.core.ratios import log_ratios
from reweigh.core.segments import Segments

ACTIONS = 5
SEGMENTS = Segments.packed([1] * ACTIONS)  # a step for each action, so that sums are expectations
g = torch.Generator().manual_seed(7)
THETA, REFERENCE, PHI = torch.randn(3, ACTIONS, generator=g, dtype=torch.float64)


def divergence(p, q):
    return (p.exp() * (p - q)).sum()


def gradient(value, leaf):
    return torch.autograd.grad(value, leaf, retain_graph=True)[0]


@pytest.fixture(params=["on-policy", "off-policy"])
def setting(request):
    """Logits to differentiate, log-probs of target and reference, behaviour and weights."""
    logits = THETA.clone().requires_grad_()
    target, reference = logits.log_softmax(0), REFERENCE.log_softmax(0)
    behaviour = (THETA if request.param == "on-policy" else PHI).log_softmax(0)
    return logits, target, reference, behaviour.exp(), (target - behaviour).exp()


@pytest.mark.parametrize("name", ["kl_k1", "kl_k2", "kl_k3", "kl_from_reference"])
def test_value_and_gradient_in_expectation(setting, name):
    logits, target, reference, behaviour, weights = setting
    ratios = log_ratios(target, reference, SEGMENTS)
    expected = (behaviour * getattr(surrogates, name)(ratios, weights, SEGMENTS)).sum()
    forward, backward = divergence(target, reference), divergence(reference, target)
    truth = backward if name == "kl_from_reference" else forward
    value = (target.exp() * (target - reference).square() / 2).sum() if name == "kl_k2" else truth
    close(expected.detach(), value.detach())
    close(gradient(expected, logits), gradient(truth, logits))
    assert not torch.allclose(gradient(forward, logits), gradient(backward, logits), atol=0.05)


def test_what_automatic_differentiation_gives(setting):
    """The published forms: which divergence, if any, each of them moves."""
    logits, target, reference, behaviour, weights = setting
    ratios = target - reference
    k1, k2, k3 = ratios, ratios.square() / 2, (-ratios).exp() - 1 + ratios
    constant = weights.detach()

    def mean_gradient(x):
        return gradient((behaviour * x).sum(), logits)

    forward = gradient(divergence(target, reference), logits)
    backward = gradient(divergence(reference, target), logits)
    close(mean_gradient(constant * k1), torch.zeros(ACTIONS))
    close(mean_gradient(constant * k2), forward)
    close(mean_gradient(constant * k3), backward)
    close(mean_gradient(weights * k1), forward)
    close(mean_gradient(weights * k3), forward)
    # The last two as they are at every sample, not in the mean alone.
    for theirs, ours, weight in (
        (weights * k3, surrogates.kl_k3, weights),
        (k3, surrogates.kl_from_reference, torch.ones(ACTIONS)),
        (constant * k2, surrogates.kl_k2, weights),
    ):
        found = ours(ratios, weight, SEGMENTS)
        close(gradient(found.sum(), target), gradient(theirs.sum(), target))
        if ours is not surrogates.kl_from_reference:
            close(found.detach(), theirs.detach())


def test_k2_and_k3_are_never_negative_and_k1_is():
    b = ragged([400], 0)
    ratios, unit = b.ratios, torch.ones(400)
    assert bool((surrogates.kl_k1(ratios, unit, b.segments) < 0).any())
    for estimate in (surrogates.kl_k2, surrogates.kl_k3, surrogates.kl_from_reference):
        assert bool((estimate(ratios, unit, b.segments) >= 0).all())


def test_k3_keeps_its_digits_where_policies_are_close():
    found = surrogates.kl_k3(torch.tensor([1e-6]).double(), torch.ones(1), Segments.packed([1]))
    assert found.item() == pytest.approx(0.5e-12, rel=1e-5, abs=0.0)


def test_the_divergence_of_trajectories_is_a_reward():
    # Two steps; the second's policy depends on the first action.
    first = torch.randn(2, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    second = torch.randn(2, 2, generator=torch.Generator().manual_seed(2)).double()
    second.requires_grad_()
    reference = torch.tensor(0.5).log()
    paths = list(itertools.product(range(2), repeat=2))
    segments = Segments.packed([2] * 4)
    log_prob = torch.stack(
        [x for a, b in paths for x in (first.log_softmax(0)[a], second[a].log_softmax(0)[b])]
    )
    ratios = log_ratios(log_prob, torch.full((8,), float(reference)), segments)
    whole = segments.total(log_prob)
    truth = (whole.exp() * segments.total(ratios)).sum()
    cost = returns.reward_to_go(-ratios.detach(), segments, discount=1.0)
    unit = torch.ones(8)
    as_reward = surrogates.weighted_log_prob(log_prob, unit, cost, segments)
    as_penalty = surrogates.kl_k1(ratios, unit, segments)
    probability = whole.exp().detach()
    reward, penalty = ((probability * segments.total(x)).sum() for x in (as_reward, as_penalty))
    close(gradient(-reward, first), gradient(truth, first), 1e-7)
    # A penalty holds the states fixed, and so leaves out what the first action does to the second
    # step; in the last step of an episode, the two agree.
    assert not torch.allclose(gradient(penalty, first), gradient(truth, first), atol=1e-2)
    close(gradient(penalty, second), gradient(truth, second), 1e-7)


@pytest.mark.parametrize("estimate", [surrogates.kl_k1, surrogates.kl_k2, surrogates.kl_k3])
def test_extreme_log_ratios(estimate):
    ratios = torch.tensor([1e4, -1e4, -torch.inf, torch.inf, 0.5], requires_grad=True)
    weights = torch.tensor([2.0, 1.0, 0.0, 0.0, 0.0])
    found = estimate(ratios, weights, Segments.packed([5]))
    assert gradient(found.sum(), ratios).tolist() == [2e4, -1e4, 0.0, 0.0, 0.0]
    assert bool(found[0].isfinite()) and found[2:].tolist() == [0.0, 0.0, 0.0]
    assert not bool(found.isnan().any())


def test_weights_are_constants():
    weights = torch.ones(2, requires_grad=True)
    ratios = torch.tensor([0.3, -0.4], requires_grad=True)
    for estimate in (surrogates.kl_k1, surrogates.kl_k2, surrogates.kl_k3):
        found = estimate(ratios, weights, Segments.packed([2]))
        assert torch.autograd.grad(found.sum(), weights, allow_unused=True)[0] is None


def test_entropy_in_closed_form(setting):
    logits, target, _, _, _ = setting
    truth = -(target.exp() * target).sum()
    found = surrogates.entropy(target.unsqueeze(0), Segments.packed([1])).sum()
    close(found.detach(), truth.detach())
    close(gradient(found, logits), gradient(truth, logits))


def test_entropy_of_a_uniform_policy_outside_whose_support_is_nothing():
    logits = torch.tensor([[1.0, 1.0, -torch.inf, 1.0], [0.0, 1e4, 0.0, 0.0]], requires_grad=True)
    found = surrogates.entropy(logits.log_softmax(1), Segments.packed([2]))
    assert found.tolist() == pytest.approx([math.log(3), 0.0], rel=1e-6)
    close(gradient(found.sum(), logits), torch.zeros(2, 4), 1e-7)


def test_entropy_is_differentiated_as_it_is():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    segments = Segments.packed([2, 1])
    assert torch.autograd.gradcheck(
        lambda x: surrogates.entropy(x.log_softmax(1), segments), logits.requires_grad_()
    )


def test_refusals():
    one, segments = torch.zeros(1), Segments.packed([1])
    for estimate in (surrogates.kl_k1, surrogates.kl_k2, surrogates.kl_k3):
        with pytest.raises(ValueError, match=r"log_ratios is torch\.bfloat16"):
            estimate(one.bfloat16(), one, segments)
        with pytest.raises(ValueError, match=r"weights must have shape \[1\]"):
            estimate(one, torch.ones(2), segments)
    with pytest.raises(ValueError, match=r"log_probs is torch\.bfloat16"):
        surrogates.entropy(torch.zeros(1, 3).bfloat16(), segments)
    with pytest.raises(ValueError, match=r"log_probs must be .* shape \[1, actions\].*\[1\]"):
        surrogates.entropy(one, segments)
