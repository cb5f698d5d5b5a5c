import pytest
import torch
from core_batches import ragged

from reweigh.core import reduce, surrogates
from reweigh.core.segments import Segments


def gradient(objective, leaf):
    return torch.autograd.grad(objective.sum(), leaf)[0]


def test_the_gradient_is_weight_times_advantage():
    b = ragged([3, 2], 0)
    log_prob = b.target.requires_grad_()
    objective = surrogates.weighted_log_prob(log_prob, b.ratios.exp(), b.advantages, b.segments)
    expected = (b.ratios.exp() * b.advantages).detach()
    torch.testing.assert_close(gradient(objective, log_prob), expected)
    torch.testing.assert_close(objective.detach(), expected * log_prob.detach())


@pytest.mark.parametrize(("weight", "advantage"), [(0.0, 3.0), (3.0, 0.0)])
def test_weight_zero_contributes_exactly_nothing(weight, advantage):
    log_prob = torch.tensor([-torch.inf, -1.0], requires_grad=True)
    weights = torch.tensor([weight, 1.0])
    advantages = torch.tensor([advantage, 1.0])
    objective = surrogates.weighted_log_prob(log_prob, weights, advantages, Segments.packed([2]))
    assert objective.tolist() == [0.0, -1.0]
    assert gradient(objective, log_prob).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("log_centre", [None, 0.4])
def test_clipping_is_the_minimum_of_the_paper(log_centre):
    b = ragged([40, 30], 1)
    log_ratios = b.ratios.requires_grad_()
    centre = None if log_centre is None else torch.full_like(b.ratios, log_centre)
    c, ratio = torch.tensor(log_centre or 0.0).double().exp(), log_ratios.exp()
    want = torch.minimum(
        ratio * b.advantages, ratio.clamp(float(c - 0.2), float(c + 0.2)) * b.advantages
    )
    found = surrogates.clipped_ratio(
        log_ratios, b.advantages, b.segments, clip=0.2, log_centre=centre
    )
    torch.testing.assert_close(found, want)
    slope = gradient(found, log_ratios)
    torch.testing.assert_close(slope, gradient(want, log_ratios))
    # Both sides of both signs occur.
    moved = slope != 0
    for sign in (b.advantages > 0, b.advantages < 0):
        assert bool(moved[sign].any()) and bool((~moved[sign]).any())


def test_at_the_centre_it_is_the_weighted_policy_gradient():
    b = ragged([5], 2)
    log_prob = b.target.requires_grad_()
    clipped = surrogates.clipped_ratio(
        b.ratios, b.advantages, b.segments, clip=0.1, log_centre=b.ratios
    )
    weighted = surrogates.weighted_log_prob(log_prob, b.ratios.exp(), b.advantages, b.segments)
    torch.testing.assert_close(gradient(clipped, log_prob), gradient(weighted, log_prob))


def test_a_ratio_that_overflows_is_clipped_without_nan():
    log_ratios = torch.tensor([800.0, 800.0, -800.0], requires_grad=True)
    advantages = torch.tensor([1.0, 0.0, -1.0])
    found = surrogates.clipped_ratio(log_ratios, advantages, Segments.packed([3]), clip=0.2)
    assert found.tolist() == pytest.approx([1.2, 0.0, -0.8])
    assert gradient(found, log_ratios).tolist() == [0.0, 0.0, 0.0]


def test_a_wide_clip_has_no_floor():
    log_ratios = torch.tensor([-3.0], requires_grad=True)
    found = surrogates.clipped_ratio(log_ratios, -torch.ones(1), Segments.packed([1]), clip=1.5)
    assert found.tolist() == pytest.approx([-torch.tensor(-3.0).exp().item()])


def test_advantages_and_centre_are_constants():
    b = ragged([3], 0)
    advantages, centre = b.advantages.requires_grad_(), b.values.requires_grad_()
    target = b.target.requires_grad_()
    clipped = surrogates.clipped_ratio(
        b.ratios, advantages, b.segments, clip=0.2, log_centre=centre
    )
    weighted = surrogates.weighted_log_prob(target, centre, advantages, b.segments)
    found = torch.autograd.grad(
        (clipped + weighted).sum(), (advantages, centre, target), allow_unused=True
    )
    assert found[0] is None and found[1] is None and found[2] is not None


def test_the_loss_is_the_negative_mean_over_episodes():
    segments = Segments.packed([3, 0, 1])
    objective = torch.tensor([1.0, 2.0, 3.0, 6.0], requires_grad=True)
    loss = reduce.loss(objective, segments)
    assert loss.item() == -4.0
    assert gradient(loss, objective).tolist() == pytest.approx([-1 / 3] * 4)


def test_micro_batches_with_the_full_divisor_sum_to_the_full_batch():
    b = ragged([3, 2, 0, 4], 3)
    full = reduce.loss(b.rewards, b.segments)
    first = reduce.loss(b.rewards[:5], Segments.packed([3, 2]), divisor=4)
    second = reduce.loss(b.rewards[5:], Segments.packed([0, 4]), divisor=4)
    torch.testing.assert_close(first + second, full)


def test_refusals():
    one, segments = torch.zeros(1), Segments.packed([1])
    with pytest.raises(ValueError, match="clip must be positive, got 0"):
        surrogates.clipped_ratio(one, one, segments, clip=0.0)
    with pytest.raises(ValueError, match="divisor must be positive, got 0"):
        reduce.loss(one, segments, divisor=0)
    with pytest.raises(ValueError, match=r"log_prob is torch\.bfloat16"):
        surrogates.weighted_log_prob(one.bfloat16(), one, one, segments)
    with pytest.raises(ValueError, match=r"objective must have shape \[1\]"):
        reduce.loss(torch.zeros(2), segments)
