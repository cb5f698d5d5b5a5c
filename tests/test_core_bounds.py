import math

import pytest
import torch
from core_batches import close, ragged

from reweigh.core import weights
from reweigh.core.segments import Segments


@pytest.mark.parametrize("maximum", [0.5, 1.0, 2.0, math.inf])
def test_truncation(maximum):
    b = ragged([4, 4], 2)
    found = weights.truncate(b.prefix, b.segments, maximum=maximum)
    close(found.log_weights.exp(), b.prefix.exp().clamp(max=maximum))
    over = b.prefix.exp() > maximum
    assert found.touched.tolist() == over.tolist()
    close(found.fraction, over.double().mean())


def test_truncation_before_exp_does_not_overflow():
    segments = Segments.packed([2])
    log_weights = torch.tensor([800.0, -800.0], requires_grad=True)
    found = weights.truncate(log_weights, segments, maximum=2.0)
    close(found.log_weights.detach(), [math.log(2.0), -800.0])
    (gradient,) = torch.autograd.grad(found.log_weights.exp().sum(), log_weights)
    assert gradient.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("maximum", [0.0, -1.0, math.nan])
def test_refuses_a_bound_that_is_none(maximum):
    with pytest.raises(ValueError, match="maximum must be positive"):
        weights.truncate(torch.zeros(1), Segments.packed([1]), maximum=maximum)


@pytest.mark.parametrize(("minimum", "maximum"), [(0.0, 1.0), (0.5, 2.0), (1.0, math.inf)])
def test_clipping_is_on_both_sides(minimum, maximum):
    b = ragged([6, 5], 2)
    plain = b.prefix.exp()
    found = weights.clip(b.prefix, b.segments, minimum=minimum, maximum=maximum)
    close(found.log_weights.exp(), plain.clamp(minimum, maximum))
    assert found.touched.tolist() == ((plain < minimum) | (plain > maximum)).tolist()


def test_a_weight_of_zero_is_clipped_up_to_the_minimum_alone():
    segments, never = Segments.packed([1]), torch.tensor([-torch.inf])
    assert weights.clip(never, segments, minimum=0.0, maximum=2.0).log_weights.exp().item() == 0.0
    found = weights.clip(never, segments, minimum=0.5, maximum=2.0)
    close(found.log_weights.exp(), [0.5])


def test_masking_keeps_the_band_and_nothing_else():
    b = ragged([6, 5], 3)
    plain = b.prefix.exp()
    found = weights.mask_outside(b.prefix, b.segments, minimum=0.5, maximum=2.0)
    outside = (plain < 0.5) | (plain > 2.0)
    assert bool(outside.any()) and bool((~outside).any())
    close(found.log_weights.exp(), torch.where(outside, 0.0, plain))
    assert found.touched.tolist() == outside.tolist()


def test_the_edges_of_a_band_are_kept():
    segments = Segments.packed([2])
    edges = torch.tensor([math.log(0.5), math.log(2.0)], dtype=torch.float64)
    assert not weights.mask_outside(edges, segments, minimum=0.5, maximum=2.0).touched.any()
    assert not weights.clip(edges, segments, minimum=0.5, maximum=2.0).touched.any()


@pytest.mark.parametrize("leak", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("maximum", [1.0, 2.0, math.inf])
def test_a_leak_mixes_the_truncated_with_the_plain(leak, maximum):
    b = ragged([6, 5], 4)
    plain = b.prefix.exp()
    found = weights.leaky_truncate(b.prefix, b.segments, maximum=maximum, leak=leak)
    want = (1 - leak) * plain.clamp(max=maximum) + leak * plain
    close(found.log_weights.exp(), want)
    assert found.touched.tolist() == ((plain > maximum) & (leak < 1)).tolist()


def test_a_leak_does_not_overflow():
    segments = Segments.packed([3])
    log_weights = torch.tensor([1e4, -1e4, -torch.inf], dtype=torch.float64, requires_grad=True)
    found = weights.leaky_truncate(log_weights, segments, maximum=1.0, leak=0.5).log_weights
    close(found.detach()[:2], [1e4 + math.log(0.5), -1e4])
    assert found[2].exp().item() == 0.0
    (slope,) = torch.autograd.grad(found[:2].sum(), log_weights)
    assert slope.tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("exponent", [-1.0, -2.0, -0.5])
def test_the_power_mean_is_that_of_the_paper(share, exponent):
    b = ragged([6, 5], 5)
    plain = b.prefix.exp()
    found = weights.power_mean(b.prefix, b.segments, share=share, exponent=exponent)
    want = ((1 - share) * plain**exponent + share) ** (1 / exponent)
    close(found.log_weights.exp(), want)
    by_step = weights.power_mean(
        b.prefix, b.segments, share=torch.full_like(plain, share), exponent=exponent
    )
    close(by_step.log_weights, found.log_weights)
    assert bool(found.touched.any()) == (share > 0)


def test_the_power_mean_is_bounded_and_keeps_zero():
    segments = Segments.packed([3])
    log_weights = torch.tensor([1e4, -1e4, -torch.inf], dtype=torch.float64, requires_grad=True)
    found = weights.power_mean(log_weights, segments, share=0.25).log_weights
    close(found.detach()[:2], [math.log(4.0), -1e4 - math.log(0.75)])
    assert found[2].exp().item() == 0.0
    (slope,) = torch.autograd.grad(found.exp().sum(), log_weights)
    assert slope.isfinite().all()
    only_one = weights.power_mean(log_weights, segments, share=1.0).log_weights
    assert only_one.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("maximum", [0.5, 1.0, 3.0])
def test_excess_is_what_truncation_cut_off(maximum):
    b = ragged([6, 5], 6)
    cut = weights.excess(b.prefix, b.segments, maximum=maximum)
    kept = weights.truncate(b.prefix, b.segments, maximum=maximum)
    close(cut.log_weights.exp() * b.prefix.exp() + kept.log_weights.exp(), b.prefix.exp())
    assert cut.touched.tolist() == kept.touched.tolist()
    close(cut.fraction, kept.fraction)


def test_excess_of_every_action():
    segments = Segments.packed([2], mask=torch.tensor([True, False]))
    ratios = torch.tensor([[2.0, 0.5, 8.0], [9.0, torch.nan, 9.0]]).double().log()
    found = weights.excess(ratios, segments, maximum=2.0)
    close(found.log_weights[0].exp(), [0.0, 0.0, 0.75])
    assert found.log_weights[1].tolist() == [0.0, 0.0, 0.0]
    assert found.touched.tolist() == [[False, False, True], [False] * 3]
    close(found.fraction, 1 / 3)


def test_a_barely_exceeded_maximum_loses_no_digits():
    over = torch.tensor([1e-13], dtype=torch.float64)
    found = weights.excess(over, Segments.packed([1]), maximum=1.0)
    close(found.log_weights.exp() / over, [1.0])


def test_a_rejected_step_has_weight_and_gradient_exactly_zero():
    segments = Segments.packed([2, 1])
    log_weights = torch.tensor([1e4, 0.5, 0.2], dtype=torch.float64, requires_grad=True)
    found = weights.reject(log_weights, torch.tensor([False, True, True]), segments)
    close(found.log_weights.detach().exp(), [0.0, math.exp(0.5), math.exp(0.2)])
    close(found.fraction, 1 / 3)
    (slope,) = torch.autograd.grad(found.log_weights.exp().sum(), log_weights)
    assert slope[0].item() == 0.0 and bool((slope[1:] > 0).all())


def test_a_veto_rejects_the_whole_episode():
    b = ragged([4, 3, 0, 2], 7)
    ratios = torch.zeros(9, dtype=torch.float64)
    ratios[5] = math.log(1e-5)
    found = weights.veto(b.prefix, ratios, b.segments, minimum=1e-4)
    assert found.touched.tolist() == [False] * 4 + [True] * 3 + [False] * 2
    assert not weights.veto(b.prefix, ratios, b.segments, minimum=1e-6).touched.any()
    above = weights.veto(b.prefix, -ratios, b.segments, minimum=0.0, maximum=100.0)
    assert above.touched.tolist() == found.touched.tolist()


@pytest.mark.parametrize(
    "bound",
    [
        lambda x, s: weights.clip(x, s, minimum=0.7, maximum=1.4),
        lambda x, s: weights.leaky_truncate(x, s, maximum=0.9, leak=0.2),
        lambda x, s: weights.mask_outside(x, s, minimum=0.7, maximum=1.4),
        lambda x, s: weights.power_mean(x, s, share=0.3, exponent=-1.5),
        lambda x, s: weights.excess(x, s, maximum=0.8),
        lambda x, s: weights.veto(x, x, s, minimum=0.2),
    ],
)
def test_bounds_are_differentiable(bound):
    b = ragged([4, 0, 3], 8)
    assert torch.autograd.gradcheck(
        lambda x: b.segments.fill(bound(x, b.segments).log_weights.exp()),
        (b.rewards.clone().requires_grad_(),),
    )


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        (lambda x, s: weights.clip(x, s, minimum=-0.1, maximum=2), r"minimum must lie in \[0, 2\]"),
        (lambda x, s: weights.clip(x, s, minimum=3, maximum=2), r"minimum must lie in \[0, 2\]"),
        (lambda x, s: weights.leaky_truncate(x, s, maximum=1, leak=2), "leak must lie in"),
        (lambda x, s: weights.power_mean(x, s, share=1.5), "share must lie in"),
        (lambda x, s: weights.power_mean(x, s, share=0.5, exponent=1), "must be negative"),
        (lambda x, s: weights.excess(x, s, maximum=0), "maximum must be positive"),
        (
            lambda x, s: weights.reject(x, x, s),
            r"kept_steps must be bool.*compare it \(kept_steps > 0\)",
        ),
        (lambda x, s: weights.reject(x, x[:0] > 0, s), r"kept_steps must have shape \[1\]"),
    ],
)
def test_refusals(bound, message):
    with pytest.raises(ValueError, match=message):
        bound(torch.zeros(1), Segments.packed([1]))


def test_a_veto_does_not_believe_nan():
    segments = Segments.packed([2, 1])
    ratios = torch.tensor([0.0, torch.nan, 0.0])
    found = weights.veto(torch.zeros(3), ratios, segments, minimum=0.1)
    assert found.touched.tolist() == [True, True, False]


def test_a_weight_that_overflows_weighs_nothing_where_there_is_nothing():
    log_weights = torch.tensor([1e4, 1e4, 1.0, -torch.inf], dtype=torch.float64)
    x = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    found = weights.weigh(log_weights, x)
    assert found.tolist() == [0.0, torch.inf, 2.0 * math.e, 0.0]
